package api

import (
	"embed"
	"io/fs"
)

//go:embed models/aws-data
var awsData embed.FS

// AWSData returns the models of our own operations for other languages: what belongs in a folder that AWS_DATA_PATH
// names, for boto3.client("tabard") and the aws command, and tabard.smithy.json for generators of clients. Callers
// only read it.
func AWSData() fs.FS {
	dir, err := fs.Sub(awsData, "models/aws-data")
	if err != nil {
		panic(err) // the folder is part of this package
	}
	return dir
}
