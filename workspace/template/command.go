package template

import (
	"encoding/json"
	"fmt"
)

// A Command is either a list of arguments, run as it is, or a line for the shell, in which variables such as
// $TUNNEL_BIN are expanded. Exactly one of its fields is set.
type Command struct {
	// Args is the program and its arguments.
	Args []string
	// Shell is a command line for sh -c.
	Shell string
}

// Argv is the argument list to execute: Args, or the shell with its command line.
func (c Command) Argv() []string {
	if c.Shell != "" {
		return []string{"/bin/sh", "-c", c.Shell}
	}
	return c.Args
}

// MarshalJSON writes a list for Args and a string for Shell, as in YAML.
func (c Command) MarshalJSON() ([]byte, error) {
	if c.Shell != "" {
		return json.Marshal(c.Shell)
	}
	return json.Marshal(c.Args)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Command) UnmarshalJSON(data []byte) error {
	*c = Command{}
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &c.Shell)
	}
	if err := json.Unmarshal(data, &c.Args); err != nil {
		return fmt.Errorf("command is neither a string nor a list of strings: %w", err)
	}
	return nil
}
