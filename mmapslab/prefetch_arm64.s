#include "textflag.h"

// func prefetch(mem *byte, offsets *int64, n int)
TEXT ·prefetch(SB), NOSPLIT, $0-24
	MOVD mem+0(FP), R0
	MOVD offsets+8(FP), R1
	MOVD n+16(FP), R2
next:
	SUBS $1, R2
	BLT  done
	MOVD.P 8(R1), R3
	ADD  R0, R3, R3
	PRFM (R3), PLDL1KEEP
	JMP  next
done:
	RET
