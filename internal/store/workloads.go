package store

import (
	"context"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/identity"
)

const workloadColumns = `account, uid, name, generation, return_urls, tags, version, created, updated, deleted`

func scanWorkload(s scanner) (w identity.Workload, err error) {
	var urls, tags string
	var created, updated, deleted int64
	err = s.Scan((*string)(&w.Account), &w.UID, &w.Name, &w.Generation, &urls, &tags, &w.Version, &created, &updated, &deleted)
	if err != nil {
		return w, err
	}
	w.ReturnURLs, w.Tags = decodeList[string](urls, &err), decodeMap[string](tags, &err)
	w.Created, w.Updated, w.Deleted = fromMillis(created), fromMillis(updated), fromMillis(deleted)
	return w, err
}

// CreateWorkload implements identity.WorkloadStore.
func (d *DB) CreateWorkload(ctx context.Context, w identity.Workload) error {
	const query = `INSERT INTO workloads (` + workloadColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`
	err := d.add(ctx, w.Account, accounts.WorkloadIdentities, query, string(w.Account), w.UID, w.Name, w.Generation, encodeList(w.ReturnURLs), encodeMap(w.Tags),
		w.Version, millis(w.Created), millis(w.Updated), millis(w.Deleted))
	return unique(err, "workload identity %q exists already", w.Name)
}

// Workload implements identity.WorkloadStore.
func (d *DB) Workload(ctx context.Context, account access.Account, name string) (identity.Workload, error) {
	const query = `SELECT ` + workloadColumns + ` FROM workloads WHERE account = $1 AND name = $2 AND deleted = 0`
	return d.workloads.get(ctx, named{account, name}, func(ctx context.Context) (identity.Workload, error) {
		w, err := scanWorkload(d.engine.read().row(ctx, query, string(account), name))
		return or(w, found(err, "workload identity %q does not exist", name))
	})
}

// WorkloadByUID implements identity.WorkloadStore.
func (d *DB) WorkloadByUID(ctx context.Context, account access.Account, uid string) (identity.Workload, error) {
	const query = `SELECT ` + workloadColumns + ` FROM workloads WHERE account = $1 AND uid = $2`
	return d.workloadUIDs.get(ctx, named{account, uid}, func(ctx context.Context) (identity.Workload, error) {
		w, err := scanWorkload(d.engine.read().row(ctx, query, string(account), uid))
		return or(w, found(err, "workload identity %q does not exist", uid))
	})
}

// Workloads implements identity.WorkloadStore. It lists those that live.
func (d *DB) Workloads(ctx context.Context, account access.Account, after string, limit int) ([]identity.Workload, error) {
	const query = `SELECT ` + workloadColumns + ` FROM workloads WHERE account = $1 AND name > $2 AND deleted = 0 ORDER BY name LIMIT $3`
	return list(ctx, d.engine.read(), scanWorkload, query, string(account), after, limit)
}

// DeletedWorkload implements identity.WorkloadStore. Of two that were deleted in the same millisecond it finds either.
func (d *DB) DeletedWorkload(ctx context.Context, account access.Account, name string) (identity.Workload, error) {
	const query = `SELECT ` + workloadColumns + ` FROM workloads WHERE account = $1 AND name = $2 AND deleted > 0
		ORDER BY deleted DESC, uid LIMIT 1`
	w, err := scanWorkload(d.engine.read().row(ctx, query, string(account), name))
	return or(w, found(err, "no workload identity %q was deleted", name))
}

// SwapWorkload implements identity.WorkloadStore. Restoring one whose name is taken is a Conflict too.
func (d *DB) SwapWorkload(ctx context.Context, w identity.Workload, oldVersion int64) error {
	const query = `UPDATE workloads SET name = $1, generation = $2, return_urls = $3, tags = $4, version = $5, created = $6,
		updated = $7, deleted = $8 WHERE account = $9 AND uid = $10 AND version = $11`
	n, err := d.exec(ctx, query, w.Name, w.Generation, encodeList(w.ReturnURLs), encodeMap(w.Tags), w.Version, millis(w.Created),
		millis(w.Updated), millis(w.Deleted), string(w.Account), w.UID, oldVersion)
	d.workloads.drop(named{w.Account, w.Name})
	d.workloadUIDs.drop(named{w.Account, w.UID})
	if err != nil {
		return unique(err, "workload identity %q exists already", w.Name)
	}
	return changed(n, nil, "workload identity %q has changed meanwhile", w.Name)
}
