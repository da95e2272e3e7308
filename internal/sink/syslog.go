package sink

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Syslog sends each line as one RFC 5424 message: facility 13 (log audit), severity 6, with no structured data and the
// line as the message. On streams they are framed by octet counting (RFC 6587 §3.4.1, RFC 5425 §4.3). Syslog knows no
// answers: a message that the peer lost after the system took it is lost, which is why checkpoints are sent too.
type Syslog struct {
	Target   string // for the key: the URL
	Datagram bool   // udp, and unix datagram sockets
	Dial     func(ctx context.Context) (net.Conn, error)
	Host     string
	Now      func() time.Time

	conn net.Conn
}

// Name implements Sink.
func (*Syslog) Name() string { return "syslog" }

// Key implements Sink.
func (s *Syslog) Key() string { return s.Target }

// Confirms implements Sink.
func (*Syslog) Confirms() bool { return false }

// Send implements Sink.
func (s *Syslog) Send(ctx context.Context, lines [][]byte) error {
	if s.conn == nil {
		conn, err := s.Dial(ctx)
		if err != nil {
			return fmt.Errorf("syslog cannot be reached: %w", err)
		}
		s.conn = conn
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = s.Now().Add(sendTime)
	}
	_ = s.conn.SetWriteDeadline(deadline) // a connection that has none fails below
	var framed []byte
	for _, l := range lines {
		m := s.message(l)
		if s.Datagram {
			if _, err := s.conn.Write(m); err != nil {
				return s.failed(err)
			}
			continue
		}
		framed = append(strconv.AppendInt(framed, int64(len(m)), 10), ' ')
		framed = append(framed, m...)
	}
	if len(framed) > 0 {
		if _, err := s.conn.Write(framed); err != nil {
			return s.failed(err)
		}
	}
	return nil
}

func (s *Syslog) failed(err error) error {
	_ = s.Close()
	return fmt.Errorf("syslog does not take messages: %w", err)
}

// message is <PRI>VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG (RFC 5424 §6).
func (s *Syslog) message(line []byte) []byte {
	const priority = 13*8 + 6
	head := fmt.Sprintf("<%d>1 %s %s tabard - audit - ", priority, s.Now().UTC().Format("2006-01-02T15:04:05.000Z"), s.Host)
	return append([]byte(head), line...)
}

// Close implements Sink.
func (s *Syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
