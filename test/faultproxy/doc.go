// Package faultproxy stands before a real server and lets things go wrong on
// the way to it. [HTTP] understands requests and answers and picks among them;
// [TCP] passes bytes on, for what is encrypted.
//
//	proxy, err := faultproxy.StartHTTP(ctx, "127.0.0.1:0", stack.VaultAddress)
//	defer proxy.Close()
//	busy := proxy.Add(faultproxy.Fault{Times: 3, Status: 503, Header: http.Header{"Retry-After": {"1"}}})
//	// the program under test uses proxy.URL()
//	busy.Hits() // 3
package faultproxy
