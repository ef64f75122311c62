/**
 * A registry on this machine that has what is staged and nothing else, in a thread of its own, so that npm can be waited
 * for. Of packages without an archive it has the manifest only: npm must see that they are for other machines.
 */

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'

/** What a registry answers for a package of one version. */
function packument({ manifest, packed }, origin) {
  const { name, version } = manifest
  const dist = { tarball: `${origin}/${name}/-/${name}-${version}.tgz` }
  if (packed) Object.assign(dist, { shasum: packed.shasum, integrity: packed.integrity })
  return { name, 'dist-tags': { latest: version }, versions: { [version]: { ...manifest, dist } } }
}

function answer(packages, request, response) {
  const [name, ...rest] = decodeURIComponent(request.url ?? '')
    .slice(1)
    .split('/')
  const found = packages.find(({ manifest }) => manifest.name === name)
  const isArchive = rest.length > 0
  if (!found || (isArchive && !found.packed)) {
    response.writeHead(404, { 'content-type': 'application/json' }).end('{ "error": "not found" }')
  } else if (isArchive) {
    response
      .writeHead(200, { 'content-type': 'application/octet-stream' })
      .end(readFileSync(found.packed.archive))
  } else {
    const origin = `http://${request.headers.host}`
    response
      .writeHead(200, { 'content-type': 'application/json' })
      .end(JSON.stringify(packument(found, origin)))
  }
}

/**
 * @param packages each a manifest, and what pack() returned where there is an archive
 * @returns the registry's address, and a function that ends it
 */
export async function startRegistry(packages) {
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: packages })
  const [port] = await once(worker, 'message')
  return { url: `http://127.0.0.1:${port}`, stop: () => worker.terminate() }
}

if (!isMainThread) {
  const server = createServer((request, response) => answer(workerData, request, response))
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
}
