// Text to ids, as `TextToIds` of text_pipeline.py: the same words, the same ids.

const PADDING = 0, UNKNOWN = 1;
// RE2, which splits the texts in training, knows these white spaces only.
const WORD = /[\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}\t\n\f\r ]/gu;

// NFKC_Casefold, as ICU's: by letter, as a whole word would get a final sigma.
const folded = (text) =>
  Array.from(
    text.normalize('NFKC').replace(/\p{Default_Ignorable_Code_Point}/gu, ''),
    (letter) => letter.toLowerCase().toUpperCase(),
  )
    .join('')
    .replace(/./gsu, (letter) => letter.toLowerCase())
    .normalize('NFKC');

export const splitWords = (text) => folded(text).match(WORD) ?? [];

// `lines` are those of vocabulary.txt: the number of a line, from 0, is its id.
export const vocabularyOf = (lines) =>
  new Map(lines.map((word, id) => [word, id]));

export function textToIds(text, vocabulary, length) {
  const ids = new Int32Array(length).fill(PADDING);
  ids[0] = UNKNOWN; // of a text without a word
  splitWords(text)
    .slice(0, length)
    .forEach((word, place) => {
      ids[place] = vocabulary.get(word) ?? UNKNOWN;
    });
  return ids;
}
