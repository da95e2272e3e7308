# make test is what CI runs. Everything else is a part of it or takes longer.
#
# The module files are never changed by a build: what go.sum does not name is not built.
export GOFLAGS := -mod=readonly

STATICCHECK := $(if $(shell grep -s 'honnef.co/go/tools/cmd/staticcheck' go.mod),go tool staticcheck,go run honnef.co/go/tools/cmd/staticcheck)
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME    ?= 60s

.DEFAULT_GOAL := help
.PHONY: help build check provision quick test mutants verify vuln bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

build: ## bin/tabard, static
	CGO_ENABLED=0 go build -trimpath -o bin/tabard ./cmd/tabard

check: ## gofmt, vet, staticcheck, layout, generated code unchanged
	@echo 'check: gofmt'
	@files=$$(gofmt -l .); [ -z "$$files" ] || { printf 'gofmt would change:\n%s\n' "$$files"; exit 1; }
	@echo 'check: vet (a cold build cache takes some minutes)'
	@go vet ./...
	@echo 'check: staticcheck (likewise)'
	@$(STATICCHECK) ./...
	@echo 'check: layout (arch_test.go)'
	@go test -run Arch .
	@echo 'check: generated code'
	@scripts/generated.sh

provision: ## install what the tests run against, as far as this machine lets us
	@scripts/provision.sh

quick: ## the tests, with Go and nothing else; says what was skipped and why
	@go run ./scripts/quick

test: check provision ## everything that CI runs
	@scripts/test.sh

mutants: ## take each protection of scripts/mutants/table.txt out and see its test fail
	@go run ./scripts/mutants

verify: ## the long ones: every test under the race detector, all mutants, every fuzz target for FUZZTIME
	@FUZZTIME=$(FUZZTIME) scripts/verify.sh

vuln: ## known vulnerabilities in what we use; needs the vulnerability database
	@go run $(GOVULNCHECK) ./... || { \
		echo 'vuln: NOT passed: either something was found, or the database was out of reach; the lines above say which'; \
		exit 1; }

bench: ## the benchmark of the hot path and its floor
	go run ./bench

clean: ## remove what build and provision made
	rm -rf bin test/node_modules test/postgres/node_modules test/.venv test/keycloak/dist
