package api

import (
	"fmt"
	"regexp"
)

// MaxName is the longest workspace name in bytes: it must fit a DNS label.
const MaxName = 63

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// CheckName reports why name cannot be a workspace's name; nil if it can.
func CheckName(name string) error {
	if len(name) > MaxName || !nameForm.MatchString(name) {
		return fmt.Errorf("bad workspace name %q: use 1 to %d of a-z, 0-9 and -, with no - at either end", name, MaxName)
	}
	return nil
}
