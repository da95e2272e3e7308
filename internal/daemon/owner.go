package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckOwner returns an error if the data directory belongs to another user, or others can write to it: whoever owns it
// decides which server the commands on this machine talk to, and under which key a server seals (threat M17). Root's
// are trusted, since root can do both anyway. A directory that does not exist is nobody's.
func CheckOwner(dir string) error {
	root, err := OpenOwned(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return root.Close()
}

// OpenOwned opens the directory, or returns the error of CheckOwner. What is read from it then is of the directory that
// was looked at, whatever its name leads to meanwhile. A symbolic link of another user is refused for itself: it can be
// turned.
func OpenOwned(dir string) (*os.Root, error) {
	if link, err := os.Lstat(dir); err != nil {
		return nil, err
	} else if link.Mode()&fs.ModeSymlink != 0 {
		if owner, ok := link.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
			return nil, fmt.Errorf("the data directory %s is a link of another user (uid %d)", dir, owner.Uid)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err == nil {
		err = owned(dir, info)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

func owned(dir string, info fs.FileInfo) error {
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("the data directory %s belongs to another user (uid %d)", dir, owner.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("the data directory %s can be written by others (mode %04o)", dir, info.Mode().Perm())
	}
	return nil
}
