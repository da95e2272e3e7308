package main

import (
	"strings"
	"testing"
)

func TestSkippedTestsAreNamed(t *testing.T) {
	var out strings.Builder
	read(strings.NewReader(`{"Action":"start","Package":"a"}
{"Action":"output","Package":"a","Test":"TestX","Output":"=== RUN   TestX\n"}
{"Action":"output","Package":"a","Test":"TestX","Output":"    peer.go:12: no Chromium: run make provision\n"}
{"Action":"output","Package":"a","Test":"TestX","Output":"--- SKIP: TestX (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestX","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestY","Output":"    y_test.go:3: got 1, want 2\n"}
{"Action":"output","Package":"a","Test":"TestY","Output":"--- FAIL: TestY (0.00s)\n"}
{"Action":"fail","Package":"a","Test":"TestY","Elapsed":0}
{"Action":"output","Package":"a","Test":"TestZ","Output":"    z_test.go:3: fine\n"}
{"Action":"pass","Package":"a","Test":"TestZ","Elapsed":0}
{"Action":"output","Package":"a","Output":"FAIL\ta\t0.1s\n"}
{"Action":"fail","Package":"a","Elapsed":0.1}
{"ImportPath":"b","Action":"build-output","Output":"b.go:1: syntax error\n"}
`), &out)
	got := out.String()
	for _, want := range []string{"y_test.go:3: got 1, want 2\n--- FAIL: TestY", "FAIL\ta\t0.1s\n", "b.go:1: syntax error\n", "1 tests were skipped", "\na\n    TestX: no Chromium: run make provision\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "fine") || strings.Contains(got, "=== RUN") {
		t.Errorf("what passed is printed:\n%s", got)
	}
	out.Reset()
	read(strings.NewReader(`{"Action":"pass","Package":"a"}`), &out)
	if !strings.Contains(out.String(), "nothing was skipped") {
		t.Errorf("got %q", out.String())
	}
}
