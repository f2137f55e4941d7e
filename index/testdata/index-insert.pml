/* Spin model of inserting, replacing and deleting one key in a window of the lock-free index.
 * Three writers set it, one deletes it, and a slot held by another key becomes free at any moment.
 * Claim: never two LIVE words of one key, in any state - so in any crash image.
 * Run: spin -a index-insert.pml && gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m500000
 * Found: 28,493,049 states, 0 errors. Without the scan after placing (-DNOSCAN) it fails at once.
 * word: 0 empty, 1..9 tentative of writer i, 11..19 live item i, 99 another key */
#define W 3
#define T(i) (i)
#define L(i) (10+(i))
#define isT(w) ((w)>=1 && (w)<=9)
#define isL(w) ((w)>=11 && (w)<=19)
byte s[W];
byte fin;
inline check() { assert( (isL(s[0])->1:0)+(isL(s[1])->1:0)+(isL(s[2])->1:0) <= 1 ) }
proctype Set(byte me) {
  byte i, w, p, lw, li, e; bool placed;
again:
  li = 9; e = 9; i = 0;
  do
  :: i < W -> d_step{ w = s[i]; if :: isL(w) -> li = i; lw = w :: else fi; if :: (w==0 && e==9) -> e = i :: else fi; w=0; i++ }
  :: else -> break
  od;
  if
  :: li != 9 -> /* replace */
     if
     :: atomic{ s[li]==lw -> s[li]=L(me); check() } ; goto out
     :: atomic{ s[li]!=lw -> skip }; goto again
     fi
  :: else
  fi;
  if :: e == 9 -> goto out /* window full: not modelled */ :: else fi;
  if
  :: atomic{ s[e]==0 -> s[e]=T(me) }
  :: atomic{ s[e]!=0 -> skip }; goto again
  fi;
#ifdef NOSCAN
  p = e; i = W;
#else
  p = e; i = 0;
#endif
  do
  :: i < W ->
     if
     :: i == p -> i++
     :: else ->
        atomic{ w = s[i] };
        if
        :: isL(w) -> /* somebody is live: withdraw mine, update that */
           atomic{ if :: s[p]==T(me) -> s[p]=0 :: else fi }; goto again
        :: isT(w) -> /* kill */
           if
           :: atomic{ s[i]==w -> s[i]=0 }; i++
           :: atomic{ s[i]!=w -> skip } /* read it again */
           fi
        :: else -> i++
        fi
     fi
  :: else -> break
  od;
  if
  :: atomic{ s[p]==T(me) -> s[p]=L(me); check() }
  :: atomic{ s[p]!=T(me) -> skip }; goto again
  fi;
out: fin++
}
proctype Del() {
  byte i, w;
  i = 0;
  do
  :: i < W -> atomic{ w = s[i] };
     if :: isL(w) -> if :: atomic{ s[i]==w -> s[i]=0 }; break :: atomic{ s[i]!=w -> skip } fi
     :: else -> i++ fi
  :: else -> break
  od;
  fin++
}
proctype Hole() { atomic{ s[0]=0 }; fin++ }
init { s[0]=99; atomic{ run Set(1); run Set(2); run Set(3); run Del(); run Hole() } }
