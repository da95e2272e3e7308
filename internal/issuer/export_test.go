package issuer

import "net/http"

// WriteErrorOf answers with what err is in OAuth's form.
func WriteErrorOf(w http.ResponseWriter, r *http.Request, err error) { writeError(w, r, errorOf(err)) }
