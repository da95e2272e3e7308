package oauth

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// unreached is the cause of a connection that did not come about or broke, with what it means in front. It names
// addresses: for operators and administrators only (threat E13).
func unreached(e *net.OpError) error {
	name, isName := errors.AsType[*net.DNSError](e)
	var meaning string
	switch {
	case isName && name.IsNotFound:
		meaning = fmt.Sprintf("the host %s does not exist", name.Name)
	case isName:
		meaning = fmt.Sprintf("the address of the host %s cannot be found out now", name.Name)
	case errors.Is(e, syscall.ECONNREFUSED):
		meaning = "nothing listens there"
	case errors.Is(e, syscall.EHOSTUNREACH), errors.Is(e, syscall.ENETUNREACH):
		meaning = "there is no way there from this server"
	case errors.Is(e, syscall.ECONNRESET):
		meaning = "the host hung up"
	case e.Timeout():
		meaning = "the host does not answer"
	default:
		return e
	}
	return fmt.Errorf("%s (%w)", meaning, e)
}
