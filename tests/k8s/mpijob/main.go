// Reads one MPIJob from standard input as the MPI Operator would: fields it does not know are errors, its own defaults and its
// own validation are applied. Prints what is wrong, one line each, and ends with 1; with 0 and the job with its defaults otherwise.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/kubeflow/mpi-operator/pkg/apis/kubeflow/v2beta1"
	"github.com/kubeflow/mpi-operator/pkg/apis/kubeflow/validation"
	"sigs.k8s.io/yaml"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	job := &v2beta1.MPIJob{}
	if err := yaml.UnmarshalStrict(text, job); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if job.APIVersion != v2beta1.SchemeGroupVersion.String() || job.Kind != v2beta1.Kind {
		fmt.Printf("not an MPIJob of %s: %s %s\n", v2beta1.SchemeGroupVersion, job.APIVersion, job.Kind)
		os.Exit(1)
	}
	v2beta1.SetDefaults_MPIJob(job)
	errors := validation.ValidateMPIJob(job)
	for _, one := range errors {
		fmt.Println(one)
	}
	if len(errors) > 0 {
		os.Exit(1)
	}
	out, err := yaml.Marshal(job)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Print(string(out))
}
