package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckOwner returns an error if the data directory belongs to another user, or others can write to it: whoever owns it decides
// which server the commands on this machine talk to, and under which key a server seals (threat M17). Root's are trusted, since
// root can do both anyway. A directory that does not exist is nobody's.
func CheckOwner(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("the data directory %s belongs to another user (uid %d)", dir, owner.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("the data directory %s can be written by others (mode %04o)", dir, info.Mode().Perm())
	}
	return nil
}
