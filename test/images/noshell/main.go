// Command noshell is the only file of an image without a shell.
package main

import "fmt"

func main() {
	fmt.Println("this image has no shell")
}
