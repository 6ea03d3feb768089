# Development commands. Everything that a check needs is installed by .ci/run.

GO ?= go
LINT_VERSION = v2.15.0
VULN_VERSION = v1.9.0
BENCH_TIME ?= 1s

.PHONY: build test race lint docs check fuzz bench explore clean

build: ## the one binary
	$(GO) build -o bin/tunnel ./cmd/tunnel

test: ## the README's test command
	$(GO) test ./...

race:
	$(GO) test -race -shuffle=on ./...

lint:
	$(GO) vet ./...
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) run ./...

vuln:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(VULN_VERSION) ./...

generate:
	$(GO) generate ./...

# The drawing carries the hash of the graph that it was drawn from, so that a
# test can tell a stale one without Graphviz.
docs: generate ## needs Graphviz (dot)
	$(GO) test ./fsm -run TestDocsAreTheTable -update.docs >/dev/null 2>&1 || true
	$(GO) run ./cmd/tunnel graph --format dot > docs/states.dot.tmp
	dot -Tsvg docs/states.dot.tmp > docs/states.svg
	printf '<!-- drawn from graph %s -->\n' $$(sha256sum docs/states.dot.tmp | cut -d' ' -f1) >> docs/states.svg
	rm docs/states.dot.tmp
	$(GO) test ./fsm -run TestDocsAreTheTable
	$(GO) test ./cmd/tunnel -run TestDocs -update.docs

fuzz: ## a minute for every fuzz target
	./scripts/fuzz 60s

explore: ## the exploration from a never-built workspace too
	$(GO) test ./fsm -run TestExplore -explore.full -v

bench: ## the tables of docs/benchmarks.md
	$(GO) test -run '^$$' -bench . -benchmem ./fsm
	$(GO) test -run '^$$' -bench . -benchtime $(BENCH_TIME) -timeout 30m ./cmd/tunnel

clean:
	rm -rf bin
