package pace

// Remembered returns how many kinds are remembered.
func (p *Pace) Remembered() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kinds := range p.accounts {
		n += len(kinds)
	}
	return n
}

// Remembered returns how many things are remembered.
func (t *Turns) Remembered() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, things := range t.accounts {
		n += len(things)
	}
	return n
}
