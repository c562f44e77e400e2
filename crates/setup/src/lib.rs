//! Certificates, kubeconfig files and the host check.
