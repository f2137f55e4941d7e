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

// func prefetchNeighbours(mem *byte, offsets *int64, n int, base int64)
TEXT ·prefetchNeighbours(SB), NOSPLIT, $0-32
	MOVQ mem+0(FP), AX
	MOVQ offsets+8(FP), BX
	MOVQ n+16(FP), CX
	MOVQ base+24(FP), SI
	ADDQ AX, SI
next:
	DECQ CX
	JLT  done
	MOVQ (BX), DX
	MOVL (AX)(DX*1), R8
	MOVL 4(AX)(DX*1), R9
	PREFETCHT0 (SI)(R8*8)
	PREFETCHT0 (SI)(R9*8)
	ADDQ $8, BX
	JMP  next
done:
	RET
