//! Panic: whose payload resumes, when, and where the others go.
