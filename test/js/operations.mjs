// Every operation that answers, through the AWS SDK for JavaScript v3, with asserts on shapes, times and typed errors.
//
// Environment: AWS's variables as in threelo.mjs, with the root key, and AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL;
// DISCOVERY_URL, CLIENT_ID and CLIENT_SECRET of a running OpenID provider where this client may use
// client_credentials; M2M_SCOPE (may be empty); USER_TOKEN, a JWT of a trusted issuer; EXCHANGE_DISCOVERY_URL,
// EXCHANGE_CLIENT_ID and EXCHANGE_CLIENT_SECRET of a provider that exchanges users' tokens and knows any audience.
// Events: consent {url, callback} for each browser that is wanted (application.mjs); at the end done {checked}, the
// operations that held. The first assert that fails ends it with exit code 1.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'

import * as dataPlane from '@aws-sdk/client-bedrock-agentcore'
import * as controlPlane from '@aws-sdk/client-bedrock-agentcore-control'
import { withApiKey } from 'bedrock-agentcore/identity'

import { Application } from './application.mjs'
import { fingerprint, setting, tell } from './tell.mjs'

const region = setting('AWS_REGION')
const control = new controlPlane.BedrockAgentCoreControl({})
const data = new dataPlane.BedrockAgentCore({})
const mark = randomBytes(4).toString('hex')
const app = await new Application().start()
const requests = JSON.parse(readFileSync(new URL('../requests.json', import.meta.url), 'utf8'))
const checked = []

const held = (operation) => checked.push(operation)

// refused awaits a call's failure with that exception, which is an instance of the SDK's class of this name, and
// returns it.
async function refused(plane, name, status, words, answer) {
  const e = await answer.then(
    () => assert.fail(`not refused with ${name}`),
    (e) => e,
  )
  assert.equal(e.name, name, e.message)
  assert.ok(e instanceof plane[name], `${name} is not the SDK's own exception: ${e.constructor.name}`)
  assert.equal(e.$metadata.httpStatusCode, status, e.message)
  assert.ok(e.message.toLowerCase().includes(words.toLowerCase()), `${e.message} has no ${words}`)
  assert.ok(e.$metadata.requestId, 'no x-amzn-RequestId')
  if (name === 'ValidationException') assert.ok(e.reason, 'ValidationException without a reason')
  return e
}
const refusedControl = (...rest) => refused(controlPlane, ...rest)
const refusedData = (...rest) => refused(dataPlane, ...rest)

function recent(answer) {
  for (const name of ['createdTime', 'lastUpdatedTime']) {
    assert.ok(answer[name] instanceof Date, `${name} is ${answer[name]}`)
    assert.ok(Math.abs(Date.now() - answer[name].getTime()) < 120_000, `${name} is ${answer[name]}`)
  }
  assert.ok(answer.createdTime <= answer.lastUpdatedTime)
}

const status = (answer) => answer.$metadata.httpStatusCode

async function allPages(paginator, member, pageSize) {
  const items = []
  for await (const page of paginator) {
    assert.ok(page[member].length <= pageSize, `a page of ${page[member].length}`)
    items.push(...page[member])
  }
  return items
}

async function workloads() {
  const name = `agent-${mark}`
  const { url } = app
  const made = await control.createWorkloadIdentity({
    name, allowedResourceOauth2ReturnUrls: [url], tags: { team: 'tests' },
  })
  assert.equal(status(made), 201)
  assert.equal(made.name, name)
  assert.ok(made.workloadIdentityArn.startsWith(`arn:aws:bedrock-agentcore:${region}:`), made.workloadIdentityArn)
  assert.ok(made.workloadIdentityArn.endsWith(`:workload-identity-directory/default/workload-identity/${name}`))
  assert.deepEqual(made.allowedResourceOauth2ReturnUrls, [url])
  await refusedControl('ValidationException', 400, 'already exists', control.createWorkloadIdentity({ name }))
  const bad = await refusedControl('ValidationException', 400, '', control.createWorkloadIdentity({ name: 'no spaces' }))
  assert.equal(bad.reason, 'FieldValidationFailed')
  assert.equal(bad.fieldList[0].name, 'name')
  assert.ok(bad.fieldList[0].message)
  held('CreateWorkloadIdentity')

  const got = await control.getWorkloadIdentity({ name })
  assert.deepEqual(got.allowedResourceOauth2ReturnUrls, [url])
  recent(got)
  const none = `none-${mark}`
  await refusedControl('ResourceNotFoundException', 404, '', control.getWorkloadIdentity({ name: none }))
  held('GetWorkloadIdentity')

  const urls = async (allowedResourceOauth2ReturnUrls) => {
    const changed = await control.updateWorkloadIdentity({ name, allowedResourceOauth2ReturnUrls })
    recent(changed)
    return changed.allowedResourceOauth2ReturnUrls
  }
  assert.deepEqual(await urls([url, url + '/2']), [url, url + '/2'])
  assert.deepEqual(await urls(undefined), [url, url + '/2'])
  assert.deepEqual(await urls([]), [])
  await urls([url])
  await refusedControl('ResourceNotFoundException', 404, '', control.updateWorkloadIdentity({ name: none }))
  held('UpdateWorkloadIdentity')

  const others = [0, 1, 2].map((i) => `page-${mark}-${i}`)
  for (const other of others) await control.createWorkloadIdentity({ name: other })
  const listed = await allPages(
    controlPlane.paginateListWorkloadIdentities({ client: control, pageSize: 2 }, {}), 'workloadIdentities', 2)
  const names = new Set(listed.map((w) => w.name))
  assert.equal(names.size, listed.length, 'a workload identity is on two pages')
  for (const each of [name, ...others]) assert.ok(names.has(each), `${each} is on no page`)
  for (const w of listed) assert.deepEqual(Object.keys(w).sort(), ['name', 'workloadIdentityArn'])
  await refusedControl('ValidationException', 400, '', control.listWorkloadIdentities({ maxResults: 21 }))
  held('ListWorkloadIdentities')

  for (const other of others) assert.equal(status(await control.deleteWorkloadIdentity({ name: other })), 204)
  await refusedControl('ResourceNotFoundException', 404, '', control.deleteWorkloadIdentity({ name: others[0] }))
  await refusedControl('ResourceNotFoundException', 404, '', control.getWorkloadIdentity({ name: others[0] }))
  held('DeleteWorkloadIdentity')
  return { workloadName: name, returnUrl: url }
}

const custom = (oauthDiscovery) => ({
  customOauth2ProviderConfig: {
    oauthDiscovery, clientId: setting('CLIENT_ID'), clientSecret: setting('CLIENT_SECRET'),
  },
})

function providerShape(answer, name) {
  assert.equal(answer.name, name)
  assert.ok(answer.credentialProviderArn.startsWith(`arn:aws:bedrock-agentcore:${region}:`), answer.credentialProviderArn)
  assert.ok(answer.credentialProviderArn.endsWith(`:token-vault/default/oauth2credentialprovider/${name}`))
  assert.ok(answer.clientSecretArn.secretArn.includes(':secret:bedrock-agentcore-identity!default/oauth2/'))
  assert.ok(answer.callbackUrl.includes('/identities/oauth2/callback/'), answer.callbackUrl)
  assert.equal(answer.status ?? 'READY', 'READY')
  assert.ok(!JSON.stringify(answer).includes(setting('CLIENT_SECRET')), 'the client secret came back')
}

async function createProviders(name, discoveryUrl) {
  const issuer = discoveryUrl.replace('/.well-known/openid-configuration', '')
  const create = (name, credentialProviderVendor, oauth2ProviderConfigInput) =>
    control.createOauth2CredentialProvider({ name, credentialProviderVendor, oauth2ProviderConfigInput })
  const made = await control.createOauth2CredentialProvider({
    name, credentialProviderVendor: 'CustomOauth2', oauth2ProviderConfigInput: custom({ discoveryUrl }),
    tags: { team: 'tests' },
  })
  assert.equal(status(made), 201)
  assert.equal(made.clientSecretSource, 'MANAGED')
  providerShape(made, name)
  await refusedControl('ConflictException', 409, `Credential provider with name: ${name} already exists`,
    create(name, 'CustomOauth2', custom({ discoveryUrl })))
  const bad = await refusedControl('ValidationException', 400, '',
    create(`bad_${mark}`, 'CustomOauth2', custom({ discoveryUrl: issuer + '/elsewhere' })))
  assert.equal(bad.reason, 'FieldValidationFailed')
  assert.ok(bad.fieldList.length > 0)
  await refusedControl('ValidationException', 400, '', create(`bad_${mark}`, 'GoogleOauth2', custom({ discoveryUrl })))
  const inline = await create(`inline_${mark}`, 'CustomOauth2', custom({
    authorizationServerMetadata: {
      issuer, authorizationEndpoint: issuer + '/auth', tokenEndpoint: issuer + '/token', responseTypes: ['code'],
    },
  }))
  providerShape(inline, `inline_${mark}`)
  assert.notEqual(inline.callbackUrl, made.callbackUrl, 'two providers share a callback URL')
  const google = await create(`google_${mark}`, 'GoogleOauth2', {
    googleOauth2ProviderConfig: { clientId: 'c', clientSecret: 'placeholder' },
  })
  assert.ok(google.oauth2ProviderConfigOutput.googleOauth2ProviderConfig.oauthDiscovery)
  await create(`okta_${mark}`, 'OktaOauth2', {
    includedOauth2ProviderConfig: {
      clientId: 'c', clientSecret: 'placeholder', issuer: 'https://tenant.example.com',
      authorizationEndpoint: 'https://tenant.example.com/authorize', tokenEndpoint: 'https://tenant.example.com/token',
    },
  })
  held('CreateOauth2CredentialProvider')
  return made
}

async function providers() {
  const discoveryUrl = setting('DISCOVERY_URL')
  const name = `custom_${mark}`
  const none = `none_${mark}`
  const made = await createProviders(name, discoveryUrl)

  const got = await control.getOauth2CredentialProvider({ name })
  providerShape(got, name)
  recent(got)
  assert.equal(got.credentialProviderVendor, 'CustomOauth2')
  const config = got.oauth2ProviderConfigOutput.customOauth2ProviderConfig
  assert.deepEqual(config.oauthDiscovery, { discoveryUrl })
  assert.equal(config.clientId, setting('CLIENT_ID'))
  const okta = await control.getOauth2CredentialProvider({ name: `okta_${mark}` })
  const metadata = okta.oauth2ProviderConfigOutput.includedOauth2ProviderConfig.oauthDiscovery.authorizationServerMetadata
  assert.equal(metadata.tokenEndpoint, 'https://tenant.example.com/token')
  await refusedControl('ResourceNotFoundException', 404, '', control.getOauth2CredentialProvider({ name: none }))
  held('GetOauth2CredentialProvider')

  const update = (name) => control.updateOauth2CredentialProvider({
    name, credentialProviderVendor: 'CustomOauth2', oauth2ProviderConfigInput: custom({ discoveryUrl }),
  })
  const changed = await update(name)
  providerShape(changed, name)
  recent(changed)
  assert.equal(changed.callbackUrl, made.callbackUrl, 'the callback URL did not survive an update')
  await refusedControl('ResourceNotFoundException', 404, '', update(none))
  held('UpdateOauth2CredentialProvider')

  const listed = await allPages(
    controlPlane.paginateListOauth2CredentialProviders({ client: control, pageSize: 2 }, {}), 'credentialProviders', 2)
  const mine = listed.filter((p) => p.name.endsWith(mark))
  assert.deepEqual(mine.map((p) => p.name).sort(), ['custom', 'google', 'inline', 'okta'].map((k) => `${k}_${mark}`))
  mine.forEach(recent)
  held('ListOauth2CredentialProviders')

  for (const kind of ['inline', 'google', 'okta']) {
    assert.equal(status(await control.deleteOauth2CredentialProvider({ name: `${kind}_${mark}` })), 204)
  }
  const gone = { name: `okta_${mark}` }
  await refusedControl('ResourceNotFoundException', 404, '', control.deleteOauth2CredentialProvider(gone))
  await refusedControl('ResourceNotFoundException', 404, '', control.getOauth2CredentialProvider(gone))
  held('DeleteOauth2CredentialProvider')
  return name
}

// vendors makes, reads and updates a provider of each vendor, and with each member of the configurations.
async function vendors() {
  for (const v of requests.offered) {
    const [[member, config]] = Object.entries(v.config)
    const ask = { name: `${v.name}_${mark}`, credentialProviderVendor: v.vendor }
    const whole = { ...ask, oauth2ProviderConfigInput: v.config }
    for (const answer of [
      await control.createOauth2CredentialProvider(whole),
      await control.getOauth2CredentialProvider({ name: ask.name }),
      await control.updateOauth2CredentialProvider(whole),
    ]) {
      const out = answer.oauth2ProviderConfigOutput
      assert.deepEqual(Object.keys(out), [member])
      assert.equal(out[member].clientId, config.clientId)
      if (config.clientAuthenticationMethod) {
        assert.equal(out[member].clientAuthenticationMethod, config.clientAuthenticationMethod)
      }
      assert.ok(!JSON.stringify(answer).includes('placeholder-secret'), 'the client secret came back')
    }
    const external = { ...config, clientSecretSource: 'EXTERNAL', clientSecretConfig: { secretId: 's', jsonKey: 'k' } }
    delete external.clientSecret
    await refusedConfig('EXTERNAL', { [member]: external }, ask)
    if (v.name === 'actor') {
      for (const r of requests.refused) {
        const wrong = { oauthDiscovery: config.oauthDiscovery, clientId: 'placeholder', ...r.with }
        await refusedConfig(r.words, { [member]: wrong }, ask)
      }
    }
    await control.deleteOauth2CredentialProvider({ name: ask.name })
  }
}

// refusedConfig: a configuration is refused of a new provider and of the one that there is.
async function refusedConfig(words, oauth2ProviderConfigInput, ask) {
  const whole = { ...ask, oauth2ProviderConfigInput }
  const made = control.createOauth2CredentialProvider({ ...whole, name: `refused_${mark}` })
  await refusedControl('ValidationException', 400, words, made)
  await refusedControl('ValidationException', 400, words, control.updateOauth2CredentialProvider(whole))
}

async function apiKeys(workloadName) {
  const name = `key_${mark}`
  const none = `none_${mark}`
  const apiKey = `placeholder-${mark}`
  const made = await control.createApiKeyCredentialProvider({
    name, apiKey, apiKeySecretSource: 'MANAGED', tags: { team: 'tests' },
  })
  assert.equal(status(made), 201)
  assert.equal(made.name, name)
  assert.ok(made.credentialProviderArn.endsWith(`:token-vault/default/apikeycredentialprovider/${name}`))
  assert.ok(made.apiKeySecretArn.secretArn, 'no ARN of the secret')
  assert.ok(!JSON.stringify(made).includes(apiKey), 'the API key came back')
  await refusedControl('ConflictException', 409, name, control.createApiKeyCredentialProvider({ name, apiKey }))
  const external = { name, apiKeySecretSource: 'EXTERNAL', apiKeySecretConfig: { secretId: 's', jsonKey: 'k' } }
  const elsewhereMade = control.createApiKeyCredentialProvider({ ...external, name: none })
  await refusedControl('ValidationException', 400, 'apiKeySecretSource', elsewhereMade)
  const moved = control.updateApiKeyCredentialProvider(external)
  await refusedControl('ValidationException', 400, 'apiKeySecretSource', moved)
  held('CreateApiKeyCredentialProvider')

  const got = await control.getApiKeyCredentialProvider({ name })
  assert.equal(got.credentialProviderArn, made.credentialProviderArn)
  recent(got)
  assert.ok(!JSON.stringify(got).includes(apiKey), 'the API key came back')
  await refusedControl('ResourceNotFoundException', 404, '', control.getApiKeyCredentialProvider({ name: none }))
  held('GetApiKeyCredentialProvider')

  // withApiKey hands the key to an agent's tool; after an update it is the new one.
  const { workloadAccessToken: workloadIdentityToken } = await data.getWorkloadAccessToken({ workloadName })
  const tool = withApiKey({ workloadIdentityToken, providerName: name })(async (day, key) => [day, key])
  assert.deepEqual(await tool('monday'), ['monday', apiKey])
  const elsewhere = data.getResourceApiKey({ workloadIdentityToken, resourceCredentialProviderName: none })
  await refusedData('ResourceNotFoundException', 404, '', elsewhere)
  const changed = await control.updateApiKeyCredentialProvider({
    name, apiKey: apiKey + '-2', apiKeySecretSource: 'MANAGED',
  })
  recent(changed)
  assert.deepEqual(await tool('tuesday'), ['tuesday', apiKey + '-2'])
  const missing = control.updateApiKeyCredentialProvider({ name: none, apiKey })
  await refusedControl('ResourceNotFoundException', 404, '', missing)
  held('UpdateApiKeyCredentialProvider')
  held('GetResourceApiKey')

  await control.createApiKeyCredentialProvider({ name: `second_${mark}`, apiKey })
  const listed = await allPages(
    controlPlane.paginateListApiKeyCredentialProviders({ client: control, pageSize: 1 }, {}), 'credentialProviders', 1)
  assert.deepEqual(listed.map((p) => p.name).filter((n) => n.endsWith(mark)).sort(), [name, `second_${mark}`])
  listed.forEach(recent)
  held('ListApiKeyCredentialProviders')

  for (const each of [name, `second_${mark}`]) {
    assert.equal(status(await control.deleteApiKeyCredentialProvider({ name: each })), 204)
  }
  await refusedControl('ResourceNotFoundException', 404, '', control.deleteApiKeyCredentialProvider({ name }))
  held('DeleteApiKeyCredentialProvider')
}

async function tags(workloadName) {
  const { workloadIdentityArn: resourceArn } = await control.getWorkloadIdentity({ name: workloadName })
  const now = async () => (await control.listTagsForResource({ resourceArn })).tags
  await control.tagResource({ resourceArn, tags: { team: 'tests', 'cost center': 'a+b=c' } })
  assert.deepEqual(await now(), { team: 'tests', 'cost center': 'a+b=c' })
  held('TagResource')
  await control.untagResource({ resourceArn, tagKeys: ['cost center'] })
  assert.deepEqual(await now(), { team: 'tests' })
  held('UntagResource')
  const gone = resourceArn.replace(workloadName, `none-${mark}`)
  await refusedControl('ResourceNotFoundException', 404, '', control.listTagsForResource({ resourceArn: gone }))
  held('ListTagsForResource')

  const vault = await control.getTokenVault({ tokenVaultId: 'default' })
  assert.equal(vault.tokenVaultId, 'default')
  assert.ok(vault.kmsConfiguration.keyType, 'no key type')
  assert.ok(vault.lastModifiedDate instanceof Date, `lastModifiedDate is ${vault.lastModifiedDate}`)
  held('GetTokenVault')
  const kmsConfiguration = { keyType: 'ServiceManagedKey' }
  const kept = await control.setTokenVaultCMK({ tokenVaultId: 'default', kmsConfiguration })
  assert.deepEqual(kept.kmsConfiguration, kmsConfiguration)
  assert.deepEqual(kept.lastModifiedDate, vault.lastModifiedDate)
  const kmsKeyArn = 'arn:aws:kms:us-east-1:000000000000:key/01234567-89ab-cdef-0123-456789abcdef'
  const theirs = control.setTokenVaultCMK({ kmsConfiguration: { keyType: 'CustomerManagedKey', kmsKeyArn } })
  await refusedControl('ValidationException', 400, 'CustomerManagedKey', theirs)
  held('SetTokenVaultCMK')
}

// notOffered: the lists of what is not offered are empty; the rest is refused, or finds nothing.
async function notOffered() {
  for (const r of requests.not_offered) {
    const [client, refusal] = r.plane === 'data' ? [data, refusedData] : [control, refusedControl]
    const answer = client[r.operation[0].toLowerCase() + r.operation.slice(1)](r.arguments)
    if (r.empty) assert.deepEqual((await answer)[r.empty], [])
    else await refusal(r.code, r.code === 'ValidationException' ? 400 : 404, r.words, answer)
    if (!checked.includes(r.operation)) held(r.operation)
  }
}

async function workloadTokens(workloadName, userId) {
  const userToken = setting('USER_TOKEN')
  const { workloadAccessToken: machine } = await data.getWorkloadAccessToken({ workloadName })
  const nobody = data.getWorkloadAccessToken({ workloadName: `none-${mark}` })
  await refusedData('ResourceNotFoundException', 404, '', nobody)
  held('GetWorkloadAccessToken')
  const { workloadAccessToken: byId } = await data.getWorkloadAccessTokenForUserId({ workloadName, userId })
  held('GetWorkloadAccessTokenForUserId')
  const { workloadAccessToken: byJwt } = await data.getWorkloadAccessTokenForJWT({ workloadName, userToken })
  const forged = data.getWorkloadAccessTokenForJWT({ workloadName, userToken: userToken.slice(0, -8) + 'AAAAAAAA' })
  await refusedData('UnauthorizedException', 401, '', forged)
  const long = data.getWorkloadAccessTokenForJWT({ workloadName, userToken: `a.${'b'.repeat(17000)}.c` })
  await refusedData('ValidationException', 400, '', long)
  held('GetWorkloadAccessTokenForJWT')
  assert.equal(new Set([machine, byId, byJwt]).size, 3)
  return { machine, byId, byJwt }
}

async function machineToken(wat, provider) {
  const ask = {
    workloadIdentityToken: wat, resourceCredentialProviderName: provider, oauth2Flow: 'M2M',
    scopes: setting('M2M_SCOPE', '').split(' ').filter(Boolean),
  }
  const first = await data.getResourceOauth2Token(ask)
  assert.ok(first.accessToken)
  assert.ok(!first.authorizationUrl && !first.sessionUri, 'a machine was asked to consent')
  const again = await data.getResourceOauth2Token(ask)
  assert.equal(fingerprint(again.accessToken), fingerprint(first.accessToken), 'the second call was no vault hit')
  const unknown = data.getResourceOauth2Token({ ...ask, workloadIdentityToken: 'not a token' })
  await refusedData('UnauthorizedException', 401, '', unknown)
  const elsewhere = data.getResourceOauth2Token({ ...ask, resourceCredentialProviderName: `none_${mark}` })
  await refusedData('ResourceNotFoundException', 404, '', elsewhere)
}

// exchanging makes a provider that exchanges users' tokens. Only workload access tokens from after it are good for that.
async function exchanging() {
  const name = `exchange_${mark}`
  await control.createOauth2CredentialProvider({
    name, credentialProviderVendor: 'CustomOauth2', oauth2ProviderConfigInput: {
      customOauth2ProviderConfig: {
        oauthDiscovery: { discoveryUrl: setting('EXCHANGE_DISCOVERY_URL') },
        clientId: setting('EXCHANGE_CLIENT_ID'), clientSecret: setting('EXCHANGE_CLIENT_SECRET'),
        onBehalfOfTokenExchangeConfig: {
          grantType: 'TOKEN_EXCHANGE', tokenExchangeGrantTypeConfig: { actorTokenContent: 'NONE' },
        },
      },
    },
  })
  return name
}

async function exchange(provider, byJwt, machine) {
  const ask = {
    resourceCredentialProviderName: provider, oauth2Flow: 'ON_BEHALF_OF_TOKEN_EXCHANGE', scopes: ['read'],
    resources: ['https://api.example.com'], audiences: ['api'],
  }
  const first = await data.getResourceOauth2Token({ ...ask, workloadIdentityToken: byJwt })
  const again = await data.getResourceOauth2Token({ ...ask, workloadIdentityToken: byJwt })
  assert.equal(fingerprint(again.accessToken), fingerprint(first.accessToken), 'the second exchange was no vault hit')
  const nobody = data.getResourceOauth2Token({ ...ask, workloadIdentityToken: machine })
  await refusedData('ValidationException', 400, '', nobody)
  const own = await data.getResourceOauth2Token({
    ...ask, workloadIdentityToken: machine, oauth2Flow: 'M2M', customParameters: { tenant: 'x' },
  })
  assert.ok(own.accessToken)
}

// consents: users consent in a browser, one known by a token, with all that can be asked for, and one that is asserted.
async function consents(resourceCredentialProviderName, resourceOauth2ReturnUrl, { byJwt, byId }, userId) {
  const { callbackUrl } = await control.getOauth2CredentialProvider({ name: resourceCredentialProviderName })
  const ask = {
    resourceCredentialProviderName, resourceOauth2ReturnUrl, oauth2Flow: 'USER_FEDERATION',
    scopes: ['openid', 'calendar.write'],
  }
  const whole = {
    ...ask, workloadIdentityToken: byJwt, resources: ['https://calendar.example.com'], audiences: ['calendar'],
    customParameters: { prompt: 'consent' }, customState: "of the browser's session",
  }
  const user = { userToken: setting('USER_TOKEN') }
  const first = await app.consent(data, callbackUrl, user, whole)
  assert.equal(fingerprint((await data.getResourceOauth2Token(whole)).accessToken), fingerprint(first))
  const forced = await app.consent(data, callbackUrl, user, { ...whole, forceAuthentication: true })
  const asserted = await app.consent(data, callbackUrl, { userId }, { ...ask, workloadIdentityToken: byId })
  assert.equal(new Set([first, forced, asserted].map(fingerprint)).size, 3)
}

async function tokens({ workloadName, returnUrl }, provider) {
  const exchanger = await exchanging()
  const userId = `tests+${mark}`
  const { machine, byId, byJwt } = await workloadTokens(workloadName, userId)
  await machineToken(machine, provider)

  const ask = {
    resourceCredentialProviderName: provider, oauth2Flow: 'USER_FEDERATION', scopes: ['openid'],
    resourceOauth2ReturnUrl: returnUrl,
  }
  let sessionUri
  for (const workloadIdentityToken of [byJwt, byId]) {
    const first = await data.getResourceOauth2Token({ ...ask, workloadIdentityToken })
    assert.ok(!first.accessToken)
    assert.equal(first.sessionStatus, 'IN_PROGRESS')
    sessionUri = first.sessionUri
    assert.ok(sessionUri.startsWith('urn:ietf:params:oauth:request_uri:'))
    assert.ok(first.authorizationUrl.includes('/identities/oauth2/authorize?request_uri='))
    const poll = await data.getResourceOauth2Token({ ...ask, workloadIdentityToken, sessionUri })
    assert.equal(poll.sessionUri, sessionUri)
    assert.ok(!poll.accessToken)
  }
  const foreign = data.getResourceOauth2Token({ ...ask, workloadIdentityToken: byJwt, sessionUri })
  await refusedData('AccessDeniedException', 403, 'Invalid or expired session', foreign)
  const stray = { ...ask, workloadIdentityToken: byId, resourceOauth2ReturnUrl: 'https://elsewhere.example.com/' }
  await refusedData('ValidationException', 400, '', data.getResourceOauth2Token(stray))
  await consents(provider, returnUrl, { byJwt, byId }, userId)
  await exchange(exchanger, byJwt, machine)
  held('GetResourceOauth2Token')

  const complete = (sessionUri, userId) => data.completeResourceTokenAuth({ sessionUri, userIdentifier: { userId } })
  const unknown = complete(`urn:ietf:params:oauth:request_uri:${mark}`, userId)
  await refusedData('AccessDeniedException', 403, 'Invalid or expired session', unknown)
  const wrongUser = complete(sessionUri, 'somebody else')
  await refusedData('AccessDeniedException', 403, 'Invalid or expired session', wrongUser)
  held('CompleteResourceTokenAuth')
}

const workload = await workloads()
await vendors()
await tokens(workload, await providers())
await apiKeys(workload.workloadName)
await tags(workload.workloadName)
await notOffered()
app.close()
tell('done', { checked })
