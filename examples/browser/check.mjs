// Loads the page in headless Chromium and compares it with LiteRT for Python.
//
//   node check.mjs [--screenshot FILE]
//
// Fails unless ids and probabilities of all examples are those that `build.py`
// wrote, typing changes the labels, and nothing but 127.0.0.1 is asked.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { serve } from './serve.mjs';

const TOLERANCE = 1e-4;
const { values: options } = parseArgs({
  options: {
    screenshot: { type: 'string' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
});
const examples = JSON.parse(
  readFileSync(new URL('build/examples.json', import.meta.url)),
);

function check(condition, message) {
  if (!condition) throw new Error(message);
}

async function compare(page) {
  let largest = 0;
  for (const { text, ids, probabilities } of examples) {
    const found = await page.evaluate(
      async (typed) => {
        const classifier = await window.classifier;
        return [classifier.idsOf(typed), await classifier.classify(typed)];
      },
      text,
    );
    const about = `of ${JSON.stringify(text.slice(0, 60))}`;
    check(`${found[0]}` === `${ids}`, `The ids ${about} are ${found[0]}`);
    probabilities.flat().forEach((expected, place) => {
      const difference = Math.abs(expected - found[1].flat()[place]);
      check(difference < TOLERANCE, `A probability ${about}: ${difference}`);
      largest = Math.max(largest, difference);
    });
  }
  return largest;
}

async function typed(page) {
  const shown = () => page.locator('.labels').first().innerText();
  const before = await shown();
  await page.locator('#text').fill('The striker scored twice in the cup final.');
  await page.waitForFunction(
    (old) => document.querySelector('.labels').innerText !== old,
    before,
    { timeout: 10_000 },
  );
  return shown();
}

const server = await serve(0);
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({
  executablePath: options.chromium,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
  ],
});
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 800 } });
  page.setDefaultTimeout(120_000);
  const outside = [], failures = [];
  page.on('request', (request) => {
    const url = request.url();
    if (!/^(blob|data):/.test(url) && !url.startsWith(`${origin}/`)) {
      outside.push(url);
    }
  });
  page.on('pageerror', (error) => failures.push(String(error)));
  await page.goto(origin);
  const models = await page.evaluate(
    async () => (await window.classifier).models,
  );
  const difference = await compare(page);
  const labels = await typed(page);
  check(!outside.length, `The page asked for ${outside}`);
  check(!failures.length, `The page failed: ${failures}`);
  if (options.screenshot) {
    await page.screenshot({ path: options.screenshot, fullPage: true });
  }
  console.log('| model | bytes | load (ms) | a text (ms) |');
  console.log('|---|---:|---:|---:|');
  for (const { name, bytes, loadMs, latencyMs } of models) {
    console.log(
      `| ${name} | ${bytes.toLocaleString('en')} | ${loadMs.toFixed(0)} | ` +
        `${latencyMs.toFixed(2)} |`,
    );
  }
  console.log(`\nAfter typing: ${labels.replaceAll('\n', ', ')}`);
  console.log(
    `Chromium ${browser.version()}: ${examples.length} texts as in Python, ` +
      `at most ${difference.toExponential(1)} off; no outside requests`,
  );
} finally {
  await browser.close();
  server.close();
}
