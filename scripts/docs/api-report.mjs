#!/usr/bin/env node
/**
 * `npm run api:report`: the public API as declarations, one file in etc/ for each module that users can import, so that a
 * change of it shows up in review. `-- --check` compares instead and fails where a report is out of date.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { entryPoints, fail, installTools, root } from './tools.mjs'

const arguments_ = process.argv.slice(2)
if (arguments_.includes('--help') || arguments_.includes('-h')) {
  console.log(`Usage: npm run api:report [-- --check]

Writes the public API to etc/*.api.md. --check compares with what is there and ends with exit code 1 where it differs.`)
  process.exit(0)
}
const unknown = arguments_.find((argument) => argument !== '--check')
if (unknown !== undefined) {
  console.error(
    `npm run api:report: expected --check or nothing, got '${unknown}'; see npm run api:report -- --help`,
  )
  process.exit(2)
}
const isCheck = arguments_.includes('--check')

const work = join(root, '.cache', 'api')
const types = join(work, 'types')
const reports = join(root, 'etc')

/** Declarations as the package ships them, from the sources as they are now: dist/ may be older. */
function emitDeclarations() {
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work, { recursive: true })
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const options = ['-p', join(root, 'tsconfig.build.json'), '--outDir', types]
  const { status } = spawnSync(process.execPath, [tsc, ...options], {
    stdio: 'inherit',
  })
  if (status !== 0) fail('the declarations could not be made; tsc says why above')
}

/** What API Extractor is told beside its own defaults. */
function configuration({ name, source }) {
  return {
    projectFolder: root,
    mainEntryPointFilePath: join(types, relative('src', source).replace(/\.ts$/, '.d.ts')),
    newlineKind: 'lf',
    enumMemberOrder: 'preserve',
    compiler: {
      overrideTsconfig: {
        extends: join(root, 'tsconfig.json'),
        compilerOptions: { skipLibCheck: true },
        include: [join(types, '**/*.d.ts')],
      },
    },
    apiReport: {
      enabled: true,
      reportFileName: `${name}.api.md`,
      reportFolder: reports,
      reportTempFolder: join(work, 'reports'),
    },
    docModel: { enabled: false },
    dtsRollup: { enabled: false },
    tsdocMetadata: { enabled: false },
    messages: {
      compilerMessageReporting: { default: { logLevel: 'error' } },
      extractorMessageReporting: {
        default: { logLevel: 'error' },
        // Other entries refer to the main one's names, which its own report has.
        ...(name === 'spikenorm' ? {} : { 'ae-forgotten-export': { logLevel: 'none' } }),
        // Release tags are not used: what is exported and not @internal is public.
        'ae-missing-release-tag': { logLevel: 'none' },
        // TypeDoc checks links and comments.
        'ae-unresolved-link': { logLevel: 'none' },
        // TypeDoc checks comments too, and knows which are inherited.
        'ae-undocumented': { logLevel: 'none' },
      },
      tsdocMessageReporting: { default: { logLevel: 'none' } },
    },
  }
}

async function main() {
  installTools()
  emitDeclarations()
  const { Extractor, ExtractorConfig } = await import('@microsoft/api-extractor')
  mkdirSync(reports, { recursive: true })
  const names = new Set()
  let isStale = false
  for (const entry of entryPoints) {
    const config = ExtractorConfig.prepare({
      configObject: configuration(entry),
      configObjectFullPath: undefined,
      packageJsonFullPath: join(root, 'package.json'),
    })
    const problems = []
    Extractor.invoke(config, {
      localBuild: false,
      messageCallback(message) {
        if (message.logLevel === 'error') problems.push(message.formatMessageWithLocation(root))
        message.handled = true
      },
    })
    if (problems.length > 0) fail(`${entry.name}: the public API has problems:\n  ${problems.join('\n  ')}`)
    const made = readFileSync(config.reportTempFilePath, 'utf8')
    const kept = config.reportFilePath
    names.add(`${entry.name}.api.md`)
    if (existsSync(kept) && readFileSync(kept, 'utf8') === made) continue
    if (!isCheck) {
      writeFileSync(kept, made)
      console.log(`written: ${relative(root, kept)}`)
      continue
    }
    isStale = true
    const from = existsSync(kept) ? kept : '/dev/null'
    spawnSync('git', ['diff', '--no-index', '--', from, config.reportTempFilePath], { stdio: 'inherit' })
  }
  for (const file of readdirSync(reports).filter((file) => file.endsWith('.api.md') && !names.has(file))) {
    if (isCheck) {
      console.error(`etc/${file}: no such module is exported any more`)
      isStale = true
    } else {
      rmSync(join(reports, file))
      console.log(`removed: etc/${file}`)
    }
  }
  if (isStale) {
    fail(
      'the public API is not what etc/ says. If that is meant, run npm run api:report, commit the report with the ' +
        'change, and see docs/versioning.md for what it asks of the version',
    )
  }
}

await main()
