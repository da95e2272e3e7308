package policy_test

import (
	"fmt"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
)

// forms are the ways in which an account with many policies may have written them. Each text is one of many; one of
// them permits bench what is asked.
func forms() map[string]func(i int) string {
	const when = ` when { ["a", "b"].containsAll(context.scopes) };`
	return map[string]func(i int) string{
		"principal": func(i int) string {
			return fmt.Sprintf(`permit (principal == Tabard::Principal::"bot%d", action in Tabard::Action::"release", resource)`, i) + when
		},
		"workload": func(i int) string {
			return fmt.Sprintf(`permit (principal in Tabard::WorkloadIdentity::"w%d", action in Tabard::Action::"release", resource == Tabard::Provider::"p0")`, i) + when
		},
		"role+resource": func(i int) string {
			return fmt.Sprintf(`permit (principal in Tabard::Role::"agent", action in Tabard::Action::"release", resource == Tabard::Provider::"p%d")`, i) + when
		},
		"unscoped+resource": func(i int) string {
			return fmt.Sprintf(`permit (principal, action in Tabard::Action::"release", resource == Tabard::Provider::"p%d")`, i) + when
		},
		"forbid": func(i int) string {
			if i == 0 {
				return `permit (principal == Tabard::Principal::"bot0", action in Tabard::Action::"release", resource)` + when
			}
			return fmt.Sprintf(`forbid (principal, action, resource == Tabard::Provider::"p%d");`, i)
		},
	}
}

func BenchmarkDecide(b *testing.B) {
	for name, form := range forms() {
		for _, n := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				m := &memory{}
				for i := range n {
					m.put(fmt.Sprint("n", i), form(i))
				}
				e := engine(b, m)
				c, f := agent("bot0", "w0"), release("w0", "p0", "a", "b")
				if d, err := e.Decide(b.Context(), c, access.GetResourceOauth2Token, f); err != nil || !d.Allow {
					b.Fatal(d, err)
				}
				b.ReportAllocs()
				for b.Loop() {
					_, _ = e.Decide(b.Context(), c, access.GetResourceOauth2Token, f)
				}
			})
		}
	}
}

// BenchmarkReload is what the first decision of a process costs, and the one after each write.
func BenchmarkReload(b *testing.B) {
	m := &memory{}
	for i := range 10_000 {
		m.put(fmt.Sprint("n", i), forms()["principal"](i))
	}
	c, f := agent("bot0", "w0"), release("w0", "p0", "a")
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			e := engine(b, m)
			_, _ = e.Decide(b.Context(), c, access.GetResourceOauth2Token, f)
		}
	})
	b.Run("after a write", func(b *testing.B) {
		e := engine(b, m)
		_, _ = e.Decide(b.Context(), c, access.GetResourceOauth2Token, f)
		for b.Loop() {
			m.put("n1", forms()["principal"](1))
			_, _ = e.Decide(b.Context(), c, access.GetResourceOauth2Token, f)
		}
	})
}

// 10,000 policies leave a decision as few statements to evaluate as 10 do, whichever way they are scoped.
func TestManyPoliciesAreSliced(t *testing.T) {
	for name, form := range forms() {
		left := map[int]int{}
		for _, n := range []int{10, 1_000} {
			m := &memory{}
			for i := range n {
				m.put(fmt.Sprint("n", i), form(i))
			}
			left[n] = engine(t, m).Sliced(t.Context(), agent("bot0", "w0"), access.GetResourceOauth2Token, release("w0", "p0", "a"))
		}
		if left[10] != left[1_000] || left[10] > 2 {
			t.Errorf("%s: of 10 policies %d are evaluated, of 1,000 %d", name, left[10], left[1_000])
		}
	}
}
