// The provider's memory. It is ours and not the library's own so that clients can be registered while it runs and a
// test can take a user's grants away, as a user does on his account page at a real provider.

const withGrant = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken']);

export class Memory {
  #rows = new Map(); // "Model:id" → {payload, expires}

  adapter = (model) => ({
    upsert: async (id, payload, expiresIn) => {
      const expires = expiresIn ? Date.now() + expiresIn * 1000 : Infinity;
      this.#rows.set(`${model}:${id}`, { model, id, payload, expires });
    },
    find: async (id) => this.#find(model, id),
    findByUid: async (uid) => this.#first(model, (p) => p.uid === uid),
    findByUserCode: async (code) => this.#first(model, (p) => p.userCode === code),
    consume: async (id) => {
      const payload = this.#find(model, id);
      if (payload) payload.consumed = Math.floor(Date.now() / 1000);
    },
    destroy: async (id) => { this.#rows.delete(`${model}:${id}`); },
    revokeByGrantId: async (grantId) => this.#drop((r) => withGrant.has(r.model) && r.payload.grantId === grantId),
  });

  // setClient registers a client, or replaces the one with this client_id.
  setClient(client) {
    this.#rows.set(`Client:${client.client_id}`, {
      model: 'Client', id: client.client_id, payload: client, expires: Infinity,
    });
  }

  // endGrants forgets every grant of a user, with all codes and tokens under it. It returns how many there were.
  endGrants(accountId) {
    const grants = [...this.#rows.values()].filter((r) => r.model === 'Grant' && r.payload.accountId === accountId);
    const ids = new Set(grants.map((r) => r.id));
    this.#drop((r) => (r.model === 'Grant' && ids.has(r.id)) || ids.has(r.payload.grantId));
    return grants.length;
  }

  #find(model, id) {
    const row = this.#rows.get(`${model}:${id}`);
    return row && row.expires > Date.now() ? row.payload : undefined;
  }

  #first(model, match) {
    for (const r of this.#rows.values()) {
      if (r.model === model && r.expires > Date.now() && match(r.payload)) return r.payload;
    }
    return undefined;
  }

  #drop(match) {
    for (const [key, row] of this.#rows) if (match(row)) this.#rows.delete(key);
  }
}
