package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// smallest is the least that mkfs.xfs makes a file system of.
const smallest = 300 << 20

// store is the directory of all files: NODE/VOLUME.img and snapshots/SNAPSHOT.img.
type store struct {
	directory string
}

// errName is the answer to an identifier that is none of ours: it would lead out of the directory.
var errName = errors.New("not an identifier of this driver")

// volume is the file of the volume that is known by "NODE/NAME".
func (s *store) volume(id string) (string, error) {
	node, name, found := strings.Cut(id, "/")
	if !found || !isName(node) || !isName(name) {
		return "", errName
	}
	return filepath.Join(s.directory, node, name+".img"), nil
}

func (s *store) snapshot(id string) (string, error) {
	if !isName(id) {
		return "", errName
	}
	return filepath.Join(s.directory, "snapshots", id+".img"), nil
}

func isName(text string) bool {
	return text != "" && !strings.HasPrefix(text, ".") && !strings.ContainsAny(text, "/\x00\n")
}

// create makes a file of that size with an empty file system; all of it or nothing.
func create(file string, size int64) error {
	return whole(file, func(made string) error {
		opened, err := os.OpenFile(made, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer opened.Close()
		if err := opened.Truncate(size); err != nil {
			return err
		}
		_, err = command("mkfs.xfs", "-q", "-f", made)
		return err
	})
}

// clone makes a file that shares all blocks with another, as it is at this instant.
func clone(from, file string, size int64) error {
	return whole(file, func(made string) error {
		source, err := os.Open(from)
		if err != nil {
			return err
		}
		defer source.Close()
		target, err := os.OpenFile(made, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer target.Close()
		if err := unix.IoctlFileClone(int(target.Fd()), int(source.Fd())); err != nil {
			return fmt.Errorf("cannot share the blocks of %s: %w", from, err)
		}
		if size > 0 {
			if err := target.Truncate(size); err != nil {
				return err
			}
		}
		return target.Sync()
	})
}

// whole lets a file be made under another name, so that what a crash leaves is never taken for it.
func whole(file string, make func(string) error) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	made := file + ".new"
	if err := make(made); err != nil {
		return errors.Join(err, os.Remove(made))
	}
	return os.Rename(made, file)
}

// grow makes a file larger; it never becomes smaller.
func grow(file string, size int64) error {
	now, err := sizeOf(file)
	if err != nil || now >= size {
		return err
	}
	return os.Truncate(file, size)
}

func sizeOf(file string) (int64, error) {
	status, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	return status.Size(), nil
}

// loopOf is the device that shows a file as a disk; empty if there is none.
func loopOf(file string) (string, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	said, err := command("losetup", "--noheadings", "--raw", "--output", "NAME", "--associated", file)
	if err != nil {
		return "", err
	}
	device, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return device, nil
}

// attach shows a file as a disk.
func attach(file string) (string, error) {
	device, err := loopOf(file)
	if err != nil || device != "" {
		return device, err
	}
	said, err := command("losetup", "--find", "--show", file)
	return strings.TrimSpace(said), err
}

// waitUntilFree waits for the device of a file to go, which it does a moment after the last mount:
// a pod's mounts end with the pod's last process.
func waitUntilFree(ctx context.Context, file string) error {
	for range 50 {
		if device, err := loopOf(file); err != nil || device == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	// Another mount of it lives on: the volume cannot be deleted before that ends.
	return nil
}

// whileFrozen does something to the file of a volume while nothing is written to it. A file system
// that is mounted on a node is mounted here once more: it is the same one, whoever mounts it.
func whileFrozen(file string, act func() error) (err error) {
	device, err := loopOf(file)
	if err != nil {
		return err
	}
	if device == "" {
		return act()
	}
	place, err := os.MkdirTemp("", "csi-frozen-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(place)) }()
	if _, err := command("mount", "-t", "xfs", "-o", "nouuid", device, place); err != nil {
		return err
	}
	defer func() {
		_, failed := command("umount", place)
		err = errors.Join(err, failed)
	}()
	if _, err := command("fsfreeze", "--freeze", place); err != nil {
		return err
	}
	defer func() {
		_, failed := command("fsfreeze", "--unfreeze", place)
		err = errors.Join(err, failed)
	}()
	return act()
}

// isMounted tells whether something is mounted at a place.
func isMounted(place string) (bool, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 4 && words[4] == place {
			return true, nil
		}
	}
	return false, nil
}

// unmount takes away what is mounted at a place, if anything is, and the place.
func unmount(place string) error {
	mounted, err := isMounted(place)
	if err != nil {
		return err
	}
	if mounted {
		if _, err := command("umount", place); err != nil {
			return err
		}
	}
	if err := os.Remove(place); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func command(program string, arguments ...string) (string, error) {
	said, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		line := program + " " + strings.Join(arguments, " ")
		return "", fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(said)))
	}
	return string(said), nil
}
