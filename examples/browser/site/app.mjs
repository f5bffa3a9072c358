// Runs every model of /models/models.json on what is typed.

import { loadAndCompile, loadLiteRt, Tensor } from '@litertjs/core';
import { textToIds, vocabularyOf } from './words.mjs';

const REPEATS = 51;

const get = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
};
const linesOf = async (path) =>
  (await (await get(path)).text()).replace(/\n$/, '').split('\n');
const milliseconds = (time) => `${time.toFixed(time < 10 ? 2 : 0)} ms`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

async function loadModel({ name, file }) {
  const content = new Uint8Array(await (await get(`/models/${file}`)).arrayBuffer());
  const start = performance.now();
  const model = await loadAndCompile(content, { accelerator: 'wasm' });
  const [input] = model.getInputDetails();
  return {
    name,
    model,
    bytes: content.length,
    loadMs: performance.now() - start,
    length: input.shape.at(-1),
  };
}

async function probabilities({ model, length }, ids) {
  const input = new Tensor(ids, [1, length]);
  const outputs = await model.run(input);
  const values = Array.from(await outputs[0].data());
  [input, ...outputs].forEach((tensor) => tensor.delete());
  return values;
}

async function medianTime(model, ids) {
  const times = [];
  for (let turn = 0; turn < REPEATS; turn += 1) {
    const start = performance.now();
    await probabilities(model, ids);
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[(REPEATS - 1) / 2];
}

function cardOf(model) {
  const template = document.getElementById('model').content.cloneNode(true);
  const card = template.querySelector('article');
  card.querySelector('h2').textContent = model.name;
  card.querySelector('.bytes').textContent = megabytes(model.bytes);
  card.querySelector('.load').textContent = milliseconds(model.loadMs);
  document.getElementById('models').append(card);
  return card;
}

function showLabels(card, labels, values) {
  const best = Math.max(...values);
  const items = labels.map((label, place) => {
    const item = document.createElement('li');
    const share = `${(100 * values[place]).toFixed(1)} %`;
    item.append(label, ' ', share);
    item.style.setProperty('--share', share.replace(' ', ''));
    item.classList.toggle('best', values[place] === best);
    return item;
  });
  card.querySelector('.labels').replaceChildren(...items);
}

async function main() {
  const status = document.getElementById('status');
  const field = document.getElementById('text');
  const [words, labels, listed, examples] = await Promise.all([
    linesOf('/models/vocabulary.txt'),
    linesOf('/models/labels.txt'),
    get('/models/models.json').then((answer) => answer.json()),
    get('/models/examples.json').then((answer) => answer.json()),
    loadLiteRt('/litert/core/wasm/'),
  ]);
  const vocabulary = vocabularyOf(words);
  const models = [];
  for (const one of listed) {
    status.textContent = `Loading the ${one.name} model …`;
    models.push(await loadModel(one));
  }
  const cards = models.map(cardOf);
  const idsOf = (text) => textToIds(text, vocabulary, models[0].length);

  let last = Promise.resolve();
  const classify = () => {
    last = last.then(async () => {
      const ids = idsOf(field.value);
      for (const [place, model] of models.entries()) {
        showLabels(cards[place], labels, await probabilities(model, ids));
      }
    });
    return last;
  };

  field.value = examples[0].text;
  field.addEventListener('input', classify);
  await classify();
  for (const [place, model] of models.entries()) {
    model.latencyMs = await medianTime(model, idsOf(field.value));
    const cell = cards[place].querySelector('.latency');
    cell.textContent = milliseconds(model.latencyMs);
  }
  status.textContent = 'Type, and watch the labels.';
  // For the check, and for a console.
  return {
    idsOf: (text) => Array.from(idsOf(text)),
    classify: (text) =>
      Promise.all(models.map((model) => probabilities(model, idsOf(text)))),
    models: models.map(({ name, bytes, loadMs, latencyMs }) => ({
      name,
      bytes,
      loadMs,
      latencyMs,
    })),
  };
}

window.classifier = main();
window.classifier.catch((error) => {
  document.getElementById('status').textContent = `It failed: ${error.message}`;
});
