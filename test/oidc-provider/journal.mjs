// What the provider was asked, for tests that count redemptions and refreshes. Codes and tokens appear only as
// fingerprints: the first 8 hexadecimal digits of their SHA-256.
import { createHash } from 'node:crypto';

const fingerprint = (s) => (s ? createHash('sha256').update(s).digest('hex').slice(0, 8) : undefined);
const hidden = new Set(['state', 'nonce', 'code_challenge', 'request']);

export class Journal {
  entries = [];

  #outage = { count: 0, status: 503 };

  // outage makes the next count token requests fail with status before the provider sees them.
  outage(count, status) { this.#outage = { count, status }; }

  // middleware goes in front of the provider's own handlers.
  middleware = async (ctx, next) => {
    if (ctx.path === '/token' && this.#outage.count > 0) {
      this.#outage.count -= 1;
      this.entries.push({ kind: 'token', status: this.#outage.status, result: 'outage' });
      ctx.status = this.#outage.status;
      ctx.body = 'unavailable';
      return;
    }
    await next();
    const { oidc } = ctx;
    if (oidc?.route === 'token') this.#token(ctx, oidc);
    if (oidc?.route === 'authorization') this.#authorization(oidc);
    if (oidc?.route === 'revocation') this.entries.push({ kind: 'revocation', status: ctx.status, client_id: oidc.client?.clientId });
  };

  #token(ctx, oidc) {
    const params = oidc.params ?? {};
    this.entries.push({
      kind: 'token',
      grant_type: params.grant_type,
      client_id: oidc.client?.clientId,
      presented: fingerprint(params.code ?? params.refresh_token),
      access_token: fingerprint(ctx.body?.access_token),
      refresh_token: fingerprint(ctx.body?.refresh_token),
      pkce: Boolean(params.code_verifier),
      status: ctx.status,
      result: ctx.body?.error ?? 'ok',
      description: ctx.body?.error_description,
    });
  }

  #authorization(oidc) {
    const asked = Object.entries(oidc.params ?? {}).filter(([k, v]) => v !== undefined && !hidden.has(k));
    this.entries.push({
      kind: 'authorization',
      client_id: oidc.client?.clientId,
      params: Object.fromEntries(asked.map(([k, v]) => [k, String(v)])),
    });
  }
}
