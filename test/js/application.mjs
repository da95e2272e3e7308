// The web application behind a return URL, where a user's browser comes back after consent.
//
// The script tells {"event": "consent", "url": …, "callback": …}; the test registers the callback URL at the provider and
// walks the user's browser through url, which ends here.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'

import { tell } from './tell.mjs'

const patience = 60_000 // milliseconds that a browser may take

export class Application {
  #server = createServer((request, response) => {
    const at = new URL(request.url, this.url)
    response.end('you may close this window')
    if (at.pathname === '/oauth2/callback') this.#server.emit('returned', Object.fromEntries(at.searchParams))
  })

  // start listens on loopback; url is where browsers return.
  async start() {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    this.url = `http://127.0.0.1:${this.#server.address().port}/oauth2/callback`
    return this
  }

  close() {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  // browser sends the user to url and returns the query that the browser came back with.
  async browser(url, callback) {
    const returned = once(this.#server, 'returned', { signal: AbortSignal.timeout(patience) })
    tell('consent', { url, callback })
    return (await returned)[0]
  }

  // consent gets a token of a user who consents: ask is of GetResourceOauth2Token, user of CompleteResourceTokenAuth.
  async consent(data, callback, user, { forceAuthentication, ...ask }) {
    const first = await data.getResourceOauth2Token({ ...ask, forceAuthentication })
    assert.ok(!first.accessToken)
    assert.equal(first.sessionStatus, 'IN_PROGRESS')
    const back = await this.browser(first.authorizationUrl, callback)
    assert.equal(back.session_id, first.sessionUri)
    assert.equal(back.state, ask.customState)
    const poll = { ...ask, sessionUri: first.sessionUri }
    const waiting = await data.getResourceOauth2Token(poll)
    assert.ok(!waiting.accessToken)
    assert.equal(waiting.sessionStatus, 'IN_PROGRESS')
    await data.completeResourceTokenAuth({ sessionUri: first.sessionUri, userIdentifier: user })
    return (await data.getResourceOauth2Token(poll)).accessToken
  }
}
