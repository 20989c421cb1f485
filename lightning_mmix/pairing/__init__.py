"""One step carried out: the paired target, and the gates that mix hidden states."""
