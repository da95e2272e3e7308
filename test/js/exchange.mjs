// A service and an agent that know of Tabard nothing but its address as an issuer: discovery finds the endpoints, the agent
// exchanges its workload access token there, and npm jose verifies what the service gets (RFC 9068 §4).
//
// Environment: ISSUER; AUDIENCE; WORKLOAD_TOKEN; KEY_ID and KEY_SECRET, an access key as client_secret_basic. Events: verified
// {sub, clientId, act, scope, life}, refused {what, code} for each token that must not pass, introspected {active, sub}.

import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose'

import { setting, tell } from './tell.mjs'

const issuer = setting('ISSUER')
const audience = setting('AUDIENCE')

// RFC 8414 §3.1 inserts before the path of the issuer.
const { origin, pathname } = new URL(issuer)
const found = await fetch(`${origin}/.well-known/oauth-authorization-server${pathname}`)
const server = await found.json()
if (server.issuer !== issuer || !server.grant_types_supported.includes('urn:ietf:params:oauth:grant-type:token-exchange')) {
  throw new Error(`metadata of another server: ${JSON.stringify(server)}`)
}
if (!server.token_endpoint_auth_methods_supported.includes('client_secret_basic')) throw new Error('no client_secret_basic')

const key = `${encodeURIComponent(setting('KEY_ID'))}:${encodeURIComponent(setting('KEY_SECRET'))}`
async function post(endpoint, form) {
  const answer = await fetch(endpoint, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(key).toString('base64')}` },
    body: new URLSearchParams(form),
  })
  if (!answer.ok) throw new Error(`${endpoint}: ${answer.status} ${await answer.text()}`)
  return answer.json()
}

const issued = await post(server.token_endpoint, {
  grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
  subject_token: setting('WORKLOAD_TOKEN'),
  subject_token_type: 'urn:tabard:params:oauth:token-type:workload-access-token',
  requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  resource: audience,
  scope: 'read',
})

const keys = createRemoteJWKSet(new URL(server.jwks_uri))
const expected = { issuer, audience, typ: 'at+jwt', algorithms: ['ES256'], requiredClaims: ['exp', 'iat', 'sub', 'client_id', 'jti'] }
const { payload } = await jwtVerify(issued.access_token, keys, expected)
if (decodeProtectedHeader(issued.access_token).typ !== 'at+jwt') throw new Error('not an at+jwt')
tell('verified', {
  sub: payload.sub, clientId: payload.client_id, act: payload.act, scope: payload.scope, life: payload.exp - payload.iat,
})

const [header, body, signature] = issued.access_token.split('.')
const forged = Buffer.from(JSON.stringify({ ...payload, sub: 'mallory' })).toString('base64url')
for (const [what, token, rules] of [
  ['another audience', issued.access_token, { ...expected, audience: 'somebody-else' }],
  ['another issuer', issued.access_token, { ...expected, issuer: `${issuer}/` }],
  ['as an ID token', issued.access_token, { ...expected, typ: 'JWT' }],
  ['changed', [header, forged, signature].join('.'), expected],
  ['after its end', issued.access_token, { ...expected, currentDate: new Date((payload.exp + 1) * 1000) }],
]) {
  await jwtVerify(token, keys, rules).then(
    () => { throw new Error(`${what}: accepted`) },
    (e) => tell('refused', { what, code: e.code }),
  )
}

const said = await post(server.introspection_endpoint, { token: issued.access_token })
tell('introspected', { active: said.active, sub: said.sub })
