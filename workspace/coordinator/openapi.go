package coordinator

import (
	_ "embed"
	"net/http"
	"sync"

	"github.com/goccy/go-yaml"

	"github.com/tunneler/tunneler/workspace/token"
)

// OpenAPI is the description of the API in OpenAPI 3.0 (YAML).
//
//go:embed openapi.yaml
var OpenAPI []byte

var openAPIJSON = sync.OnceValues(func() ([]byte, error) { return yaml.YAMLToJSON(OpenAPI) })

func (c *Coordinator) getOpenAPI(w http.ResponseWriter, _ *http.Request, _ token.Claims) error {
	b, err := openAPIJSON()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	// An error here is the caller's absence.
	_, _ = w.Write(b)
	return nil
}
