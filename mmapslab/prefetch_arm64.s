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

// func prefetchNeighbours(mem *byte, offsets *int64, n int, base int64)
TEXT ·prefetchNeighbours(SB), NOSPLIT, $0-32
	MOVD mem+0(FP), R0
	MOVD offsets+8(FP), R1
	MOVD n+16(FP), R2
	MOVD base+24(FP), R4
	ADD  R0, R4, R4
next:
	SUBS $1, R2
	BLT  done
	MOVD.P 8(R1), R3
	ADD  R0, R3, R3
	MOVWU (R3), R5
	MOVWU 4(R3), R6
	ADD  R5<<3, R4, R5
	ADD  R6<<3, R4, R6
	PRFM (R5), PLDL1KEEP
	PRFM (R6), PLDL1KEEP
	JMP  next
done:
	RET
