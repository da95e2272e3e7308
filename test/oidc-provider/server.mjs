// A real OpenID provider for tests: npm oidc-provider on 127.0.0.1, one process a test, started by internal/e2e/peer.
//
// The first line on standard input is the configuration (JSON, see peer.OIDCConfig); the process prints one line
// {"issuer": …} when it listens, and ends when standard input closes, so it cannot outlive the test that started it.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';
import { Memory } from './store.mjs';
import { Journal } from './journal.mjs';
import { interactions } from './pages.mjs';
import { json, text } from './http.mjs';

const lines = createInterface({ input: process.stdin });
lines.on('close', () => process.exit(0));
lines.once('line', (line) => start(JSON.parse(line)));

function start(config) {
  const server = createServer();
  server.listen(config.port ?? 0, '127.0.0.1', () => {
    const issuer = `http://127.0.0.1:${server.address().port}`;
    server.on('request', handler(issuer, config));
    process.stdout.write(`${JSON.stringify({ issuer })}\n`);
  });
}

function handler(issuer, config) {
  const memory = new Memory();
  const journal = new Journal();
  for (const client of config.clients) memory.setClient(client);
  const provider = new Provider(issuer, settings(config, memory));
  provider.use(journal.middleware);
  provider.on('server_error', (_ctx, err) => process.stderr.write(`${err.stack}\n`));
  const pages = interactions(provider, new Set(config.users));
  const rest = provider.callback();

  return async (req, res) => {
    try {
      const { pathname } = new URL(req.url, issuer);
      if (pathname.startsWith('/interaction/')) return await pages(req, res, pathname);
      if (pathname.startsWith(`/${config.admin}/`)) return await administer(req, res, pathname.split('/')[2]);
      return await rest(req, res);
    } catch (err) {
      process.stderr.write(`${err.stack}\n`);
      if (!res.headersSent) json(res, 400, { error: 'bad_request', error_description: err.message });
      return undefined;
    }
  };

  async function administer(req, res, what) {
    if (what === 'journal') return json(res, 200, journal.entries);
    const body = JSON.parse(await text(req));
    if (what === 'client') memory.setClient(body);
    else if (what === 'outage') journal.outage(body.count, body.status);
    else if (what === 'logout') await (await provider.Client.find(body.client)).backchannelLogout(body.user, body.session);
    else if (what === 'end-grants') return json(res, 200, { ended: memory.endGrants(body.user) });
    else return json(res, 404, { error: 'not_found' });
    return json(res, 200, {});
  }
}

function settings(config, memory) {
  const suffix = randomBytes(4).toString('hex');
  const cookie = (name) => `${name}_${suffix}`; // cookies ignore the port, and a test runs several providers
  return {
    adapter: memory.adapter,
    jwks: { keys: [newKey('rsa', { modulusLength: 2048 }, 'RS256'), newKey('ec', { namedCurve: 'P-256' }, 'ES256')] },
    scopes: ['openid', 'offline_access', ...config.scopes],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'preferred_username'] },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: async (_ctx, client, code) => client.grantTypeAllowed('refresh_token')
      && (config.always_refresh || code.scopes.has('offline_access')),
    expiresWithSession: async () => false,
    ttl: {
      AccessToken: config.access_token_ttl,
      ClientCredentials: config.access_token_ttl,
      IdToken: config.id_token_ttl,
      AuthorizationCode: 60,
      RefreshToken: 86400,
      Interaction: 600,
      Session: 86400,
      Grant: 86400,
    },
    cookies: {
      names: { session: cookie('_session'), interaction: cookie('_interaction'), resume: cookie('_interaction_resume') },
      keys: [randomBytes(32).toString('hex')],
      long: { signed: true },
      short: { signed: true },
    },
    // Its own dispatcher refuses loopback, which is where the clients' keys are.
    fetch: (url, { dispatcher: _, ...options }) => globalThis.fetch(url, options),
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: async (_ctx, id) => (config.users.includes(id) ? { accountId: id, claims: async () => claims(id) } : undefined),
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: resources(config),
    },
  };
}

// resources gives JWT access tokens for the configured resources, and opaque ones where no resource is asked for.
function resources(config) {
  return {
    enabled: true,
    defaultResource: async (_ctx, client) => config.default_resource?.[client?.clientId],
    useGrantedResource: async () => true,
    getResourceServerInfo: async (_ctx, indicator) => ({
      scope: config.scopes.join(' '),
      audience: indicator,
      accessTokenTTL: config.access_token_ttl,
      accessTokenFormat: 'jwt',
      jwt: { sign: { alg: 'RS256' } },
    }),
  };
}

const claims = (id) => ({
  sub: id, name: id, preferred_username: id, email: `${id}@example.test`, email_verified: true,
});

function newKey(type, options, alg) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg, kid: randomBytes(6).toString('hex') };
}
