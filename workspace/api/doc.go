// Package api holds the resources of the coordinator's HTTP API: what the
// coordinator answers, what its Go client sends, and the rules that both
// check. It knows nothing of HTTP itself, of the store or of tunnels.
package api
