// Serves the page on 127.0.0.1: `node serve.mjs [PORT]`.

import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const FOLDERS = {
  litert: path.join(HERE, 'node_modules', '@litertjs'),
  models: path.join(HERE, 'build'),
};
const TYPES = {
  '.css': 'text/css',
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.mjs': 'text/javascript',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
};

function fileOf(url) {
  const wanted = decodeURIComponent(new URL(url, 'http://page').pathname);
  const [, first, ...rest] = wanted.split('/');
  const [folder, inside] =
    first in FOLDERS
      ? [FOLDERS[first], rest.join('/')]
      : [path.join(HERE, 'site'), wanted === '/' ? 'index.html' : wanted];
  const file = path.join(folder, inside);
  return file.startsWith(folder + path.sep) ? file : null;
}

function answer(request, response) {
  try {
    const file = fileOf(request.url);
    if (file === null || !statSync(file).isFile()) throw new Error('no file');
    response.writeHead(200, {
      'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream',
      'cache-control': 'no-store',
      // What lets a page use threads.
      'cross-origin-opener-policy': 'same-origin',
      'cross-origin-embedder-policy': 'require-corp',
    });
    createReadStream(file).pipe(response);
  } catch {
    response.writeHead(404).end();
  }
}

/** Returns a server that listens on a port, 0 for any that is free. */
export function serve(port) {
  const server = createServer(answer);
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const server = await serve(Number(process.argv[2] ?? 8000));
  console.log(`http://127.0.0.1:${server.address().port}`);
}
