// Login and consent as plain HTML forms: a person fills them in a browser, a scripted user posts them over HTTP.
import { form, html, escape } from './http.mjs';

// interactions answers /interaction/{uid}, …/login, …/confirm and …/deny.
export function interactions(provider, users) {
  return async (req, res, path) => {
    const step = path.split('/')[3] ?? '';
    const details = await provider.interactionDetails(req, res);
    if (req.method === 'GET' && step === '') {
      return html(res, 200, details.prompt.name === 'login' ? loginPage(details) : consentPage(details));
    }
    if (req.method !== 'POST') return html(res, 405, 'method not allowed');
    const fields = await form(req);
    if (step === 'login') return login(req, res, details, fields.get('login') ?? '');
    if (step === 'confirm') return confirm(req, res, details, new Set(fields.getAll('reject')));
    if (step === 'deny') {
      return finish(req, res, { error: 'access_denied', error_description: 'the user said no' });
    }
    return html(res, 404, 'not found');
  };

  async function login(req, res, details, name) {
    if (!users.has(name)) return html(res, 400, loginPage(details, `there is no user ${escape(name)}`));
    return finish(req, res, { login: { accountId: name } });
  }

  async function confirm(req, res, details, rejected) {
    const { prompt, params, session } = details;
    const grant = (details.grantId && await provider.Grant.find(details.grantId))
      || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    const split = (scopes) => [scopes.filter((s) => !rejected.has(s)), scopes.filter((s) => rejected.has(s))];

    const [yes, no] = split(prompt.details.missingOIDCScope ?? []);
    if (yes.length) grant.addOIDCScope(yes.join(' '));
    if (no.length) grant.rejectOIDCScope(no.join(' '));
    if (prompt.details.missingOIDCClaims) grant.addOIDCClaims(prompt.details.missingOIDCClaims);
    for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
      const [granted, refused] = split(scopes);
      if (granted.length) grant.addResourceScope(resource, granted.join(' '));
      if (refused.length) grant.rejectResourceScope(resource, refused.join(' '));
    }
    return finish(req, res, { consent: { grantId: await grant.save() } });
  }

  async function finish(req, res, result) {
    return provider.interactionFinished(req, res, result, { mergeWithLastSubmission: !result.error });
  }
}

function loginPage({ uid, params }, problem = '') {
  return `<h1>Sign in</h1><p>${escape(params.client_id)} asks who you are.</p><p role="alert">${problem}</p>
<form method="post" action="/interaction/${uid}/login">
<label>User <input name="login" autofocus></label> <button id="login">Sign in</button></form>`;
}

function consentPage({ uid, params, session, prompt }) {
  const asked = [...(prompt.details.missingOIDCScope ?? []),
    ...Object.values(prompt.details.missingResourceScopes ?? {}).flat()];
  const box = (s) => `<li><label>${escape(s)} (refuse <input type="checkbox" name="reject" value="${escape(s)}">)</label></li>`;
  return `<h1>Allow access?</h1><p>${escape(session.accountId)}, ${escape(params.client_id)} asks for:</p>
<form method="post" action="/interaction/${uid}/confirm"><ul>${asked.map(box).join('')}</ul>
<button id="allow">Allow</button></form>
<form method="post" action="/interaction/${uid}/deny"><button id="deny">Deny</button></form>`;
}
