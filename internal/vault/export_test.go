package vault

// Held counts the vaults whose keys are in memory.
func (v *Vault) Held() int {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return len(v.opened)
}
