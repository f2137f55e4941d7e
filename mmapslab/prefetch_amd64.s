#include "textflag.h"

// func prefetch(mem *byte, offsets *int64, n int)
TEXT ·prefetch(SB), NOSPLIT, $0-24
	MOVQ mem+0(FP), AX
	MOVQ offsets+8(FP), BX
	MOVQ n+16(FP), CX
next:
	DECQ CX
	JLT  done
	MOVQ (BX), DX
	PREFETCHT0 (AX)(DX*1)
	ADDQ $8, BX
	JMP  next
done:
	RET
