// Package tap writes the Test Anything Protocol, version 13, with the names that the OCI validation programs call.
// Debian has no package of the library that they were written for.
package tap

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// T is one stream of results.
type T struct {
	count *int
	todo  bool
}

// New begins a stream; nothing is printed before Header.
func New() *T {
	return &T{count: new(int)}
}

// Header prints the version, and the plan when it is known already.
func (t *T) Header(planned int) {
	fmt.Println("TAP version 13")
	if planned > 0 {
		fmt.Printf("1..%d\n", planned)
	}
}

// AutoPlan prints the plan after the results.
func (t *T) AutoPlan() {
	fmt.Printf("1..%d\n", *t.count)
}

// Ok prints one result.
func (t *T) Ok(ok bool, description string) {
	*t.count++
	word, directive := "ok", ""
	if !ok {
		word = "not ok"
	}
	if t.todo {
		directive = " # TODO"
	}
	fmt.Printf("%s %d - %s%s\n", word, *t.count, description, directive)
}

// Pass is Ok(true).
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail is Ok(false).
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip prints that many results as skipped.
func (t *T) Skip(count int, description string) {
	for i := 0; i < count; i++ {
		*t.count++
		fmt.Printf("ok %d # SKIP %s\n", *t.count, description)
	}
}

// Todo gives a stream whose failures are expected, counted with this one's.
func (t *T) Todo() *T {
	return &T{count: t.count, todo: true}
}

// Diagnostic prints a remark.
func (t *T) Diagnostic(text string) {
	for _, line := range strings.Split(text, "\n") {
		fmt.Println("# " + line)
	}
}

// Diagnosticf prints a formatted remark.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML prints what belongs to the last result. JSON is YAML.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "    ", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "  ---\n    %s\n  ...\n", text)
	return err
}
