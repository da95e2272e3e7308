package sink

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// File appends lines to a file that only its owner can read. When it has grown to Max bytes it is renamed to path.1,
// that to path.2, and so on up to Keep files. Every batch is on disk when Send returns.
type File struct {
	Path string
	Max  int64 // bytes
	Keep int

	file *os.File
	size int64
}

// The bounds where the configuration does not say.
const (
	fileMax  = 100 << 20
	fileKeep = 10
)

// NewFile returns a File of 100 MB, of which ten are kept.
func NewFile(path string) *File { return &File{Path: path, Max: fileMax, Keep: fileKeep} }

// Name implements Sink.
func (*File) Name() string { return "file" }

// Key implements Sink.
func (f *File) Key() string { return "file:" + f.Path }

// Confirms implements Sink: what is on disk is there.
func (*File) Confirms() bool { return true }

// Send implements Sink.
func (f *File) Send(_ context.Context, lines [][]byte) error {
	if err := f.open(); err != nil {
		return err
	}
	var doc []byte
	for _, l := range lines {
		doc = append(append(doc, l...), '\n')
	}
	n, err := f.file.Write(doc)
	f.size += int64(n)
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil {
		_ = f.Close() // it is opened again: another file system may be there by then
		return fmt.Errorf("the audit file cannot be written: %w", err)
	}
	if f.size >= f.Max {
		return f.rotate()
	}
	return nil
}

func (f *File) open() error {
	if f.file != nil {
		return nil
	}
	file, err := os.OpenFile(f.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("the audit file cannot be opened: %w", err)
	}
	var size int64
	info, err := file.Stat()
	if err == nil && info.Mode().IsRegular() {
		size, err = cut(file, info.Size())
	}
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("the audit file cannot be opened: %w", err)
	}
	f.file, f.size = file, size
	return nil
}

// cut removes a line that a crash left without its end: the batch it was of is sent again.
func cut(file *os.File, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(end-int64(len(block)), 0)
		part := block[:end-start]
		if _, err := file.ReadAt(part, start); err != nil {
			return size, err
		}
		if at := bytes.LastIndexByte(part, '\n'); at >= 0 {
			whole := start + int64(at) + 1
			if whole == size {
				return size, nil
			}
			return whole, file.Truncate(whole)
		}
		end = start
	}
	return 0, file.Truncate(0)
}

func (f *File) rotate() error {
	if err := f.Close(); err != nil {
		return err
	}
	for n := f.Keep - 1; n >= 1; n-- {
		from := fmt.Sprintf("%s.%d", f.Path, n)
		if _, err := os.Stat(from); err == nil {
			if err := os.Rename(from, fmt.Sprintf("%s.%d", f.Path, n+1)); err != nil {
				return err
			}
		}
	}
	if err := os.Rename(f.Path, f.Path+".1"); err != nil {
		return err
	}
	if dir, err := os.Open(filepath.Dir(f.Path)); err == nil {
		_ = dir.Sync() // some file systems refuse; the names are found again either way
		_ = dir.Close()
	}
	return nil
}

// Close implements Sink.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
