// What the scripts share: events on standard output, one JSON object a line, and never a token in them.

import { createHash } from 'node:crypto'

export function tell(event, members = {}) {
  process.stdout.write(JSON.stringify({ event, ...members }) + '\n')
}

// The first 8 hexadecimal digits of the SHA-256, as secret.Text.Fingerprint in Go.
export function fingerprint(token) {
  return createHash('sha256').update(token).digest('hex').slice(0, 8)
}

export function setting(name, otherwise) {
  const value = process.env[name] ?? otherwise
  if (value === undefined) {
    console.error(`the environment has no ${name}`)
    process.exit(1)
  }
  return value
}

// failed tells an error of the service and ends with exit code 1; anything else is a fault of the script.
export function failed(e, members = {}) {
  if (e.$metadata === undefined) throw e
  tell('error', { ...members, code: e.name, message: e.message, status: e.$metadata.httpStatusCode })
  process.exitCode = 1
}
