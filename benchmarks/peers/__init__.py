"""What people use today, on the same job on the same machine: each as its users write it."""
