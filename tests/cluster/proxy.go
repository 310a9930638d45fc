// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// watched are the resources that agents follow.
var watched = []string{"services", "endpointslices", "nodes", "servicecidrs"}

const proxyAddress = serverAddress + ":7443"

// proxy stands before the API server, speaks HTTP/2 alone, and ends watches and connections on demand.
type proxy struct {
	c   *cluster
	url string

	mutex     sync.Mutex // guards what follows
	counts    seen
	opened    map[net.Conn]bool
	streams   map[string]*stream // the one of each resource that began last
	goAwayFor string             // the resource whose next watch is answered with a GOAWAY
}

// seen is what a proxy has been asked for so far.
type seen struct {
	Connections int
	Lists       map[string]int // and watches that begin with a list
	Watches     map[string]int // that go on from somewhere
}

func (c *cluster) startProxy() *proxy {
	p := &proxy{c: c, url: "https://" + proxyAddress, opened: map[net.Conn]bool{}, streams: map[string]*stream{},
		counts: seen{Lists: map[string]int{}, Watches: map[string]int{}}}
	pair := c.authority.serving("proxy", serverAddress)
	certificate, err := tls.X509KeyPair(pair.certificate, pair.key)
	must(c.t, err)
	listener, err := c.listen(home, proxyAddress)
	must(c.t, err)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	quiet := log.New(io.Discard, "", 0)
	server := &http.Server{
		Handler:   p.handler(quiet),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		Protocols: protocols,
		ConnState: p.noteConnection,
		ErrorLog:  quiet,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ServeTLS(listener, "", "")
	}()
	c.t.Cleanup(func() {
		server.Close()
		<-done
	})
	return p
}

func (p *proxy) handler(log *log.Logger) http.Handler {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.c.authority.pem)
	behind, err := url.Parse(serverURL)
	must(p.c.t, err)
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(behind)
			r.Out.Header.Set("Accept", "application/json") // whose events are lines; the other tests have protobuf
			p.noteRequest(r.In)
		},
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return p.c.dial(ctx, home, network, address)
			},
		},
		FlushInterval:  -1,
		ModifyResponse: p.modifyAnswer,
		ErrorLog:       log,
	}
}

func (p *proxy) noteConnection(connection net.Conn, state http.ConnState) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	switch state {
	case http.StateNew:
		p.counts.Connections++
		p.opened[connection] = true
	case http.StateClosed:
		delete(p.opened, connection)
	}
}

func (p *proxy) noteRequest(request *http.Request) {
	plural := resourceOf(request)
	if request.Method != http.MethodGet || !slices.Contains(watched, plural) {
		return
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if request.URL.Query().Get("resourceVersion") == "" || !isWatch(request) {
		p.counts.Lists[plural]++
	} else {
		p.counts.Watches[plural]++
	}
}

func resourceOf(request *http.Request) string {
	return request.URL.Path[strings.LastIndexByte(request.URL.Path, '/')+1:]
}

func isWatch(request *http.Request) bool { return request.URL.Query().Has("watch") }

func (p *proxy) modifyAnswer(answer *http.Response) error {
	if answer.StatusCode != http.StatusOK || !isWatch(answer.Request) {
		return nil
	}
	plural := resourceOf(answer.Request)
	p.mutex.Lock()
	defer p.mutex.Unlock()
	stream := newStream(answer.Body)
	answer.Body = stream
	p.streams[plural] = stream
	if p.goAwayFor == plural {
		p.goAwayFor = ""
		answer.Header.Set("Connection", "close") // by HTTP/2, net/http says GOAWAY; so does an API server
	}
	return nil
}

// sayGoAway ends a watch in order, and answers the one that takes its place with a GOAWAY on its connection.
func (p *proxy) sayGoAway(plural string) {
	p.c.t.Helper()
	p.mutex.Lock()
	p.goAwayFor = plural
	p.mutex.Unlock()
	p.endWatches(nil, plural)
	eventually(p.c.t, patience, "the watch comes back", func() error {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		if p.goAwayFor != "" {
			return errors.New("it has not yet")
		}
		return nil
	})
}

// endWatches ends watches between two events, one after the other: in order, or for a reason by a RST_STREAM. Until all
// have ended no new connection is served, because that waits for the lock.
func (p *proxy) endWatches(reason error, plurals ...string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, plural := range plurals {
		p.streams[plural].end(reason)
		time.Sleep(10 * time.Millisecond)
	}
}

func (p *proxy) seen() seen {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return seen{p.counts.Connections, maps.Clone(p.counts.Lists), maps.Clone(p.counts.Watches)}
}

// open is how many connections there are now.
func (p *proxy) open() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return len(p.opened)
}

// stream is the answer to a watch, which can be ended where the server would not.
type stream struct {
	*io.PipeReader
	end  func(reason error)
	body io.Closer
}

// newStream hands events on whole: each is a line.
func newStream(body io.ReadCloser) *stream {
	reader, writer := io.Pipe()
	go func() {
		lines := bufio.NewReader(body)
		for {
			line, err := lines.ReadBytes('\n')
			if err == nil {
				_, err = writer.Write(line)
			}
			if err != nil {
				writer.CloseWithError(err) // unless it is closed already
				return
			}
		}
	}()
	return &stream{reader, func(reason error) { writer.CloseWithError(reason) }, body}
}

func (s *stream) Close() error {
	return errors.Join(s.PipeReader.Close(), s.body.Close())
}
