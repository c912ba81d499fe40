// Uses the generated client as a program would: it compiles only while these operations have these types.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	credential := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+os.Getenv("KEY"))
		return nil
	}
	client, err := NewClientWithResponses(os.Getenv("URL"), WithRequestEditorFn(credential))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	made, err := client.EnsureTopicWithResponse(ctx, "clients.go", EnsureTopicJSONRequestBody{})
	if err != nil || made.JSON201 == nil {
		log.Fatal(err, made)
	}
	absent, err := client.ViewTopicWithResponse(ctx, "clients.absent")
	if err != nil || absent.ApplicationproblemJSON404 == nil {
		log.Fatal(err, absent)
	}
	fmt.Println(made.JSON201.Name, absent.ApplicationproblemJSON404.Code)
}
