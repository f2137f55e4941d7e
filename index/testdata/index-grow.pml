/* Spin model of growth: one key moves from the old table O to the new table N while one thread moves and deletes it, one moves and
 * sets it, one only moves, and one still deletes in the old table.
 * Claims, in every state (each is a possible crash image): at most one LIVE word in N; at most one LIVE or FROZEN word in O; no word LIVE
 * in O beside one LIVE in N; a FROZEN word in O and a LIVE word in N name the same item; a replaced or deleted item is nowhere.
 * Run: spin -a index-grow.pml && gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m800000     (about 0.6 GB; -m is the depth of the search)
 * Found: 9,003,637 states, 0 errors. With -DOLDSET two writers set the key in O while it is being moved: 939,282 states, 0 errors.
 * Shortcuts that fail: -DNORECHECK (promoting a copy without looking again whether the old slot is still FROZEN); -DOLDSET -DNOLOOK (an
 * insert in O that does not mind FROZEN and MOVED words in the scan after placing).
 * word: 0 empty, T 1..9 token of a writer, L 11..19 live, F 21..29 frozen, 50 moved, 99 another key */
#define WO 2
#define WN 3
#define T(i) (i)
#define L(i) (10+(i))
#define F(i) (20+(i))
#define isT(w) ((w)>=1 && (w)<=9)
#define isL(w) ((w)>=11 && (w)<=19)
#define isF(w) ((w)>=21 && (w)<=29)
#define MOVED 50
byte O[WO]; byte N[WN];
bool dead[4];        /* items that were replaced or deleted: they must not answer anybody again */
#define answers(w) ((isL(w) && !dead[(w)-10]) || (isF(w) && !dead[(w)-20]) || !(isL(w)||isF(w)))
/* every state is a possible crash image: at most one distinct item live over both tables */
inline image() {
  d_step {
    assert( (isL(N[0])->1:0)+(isL(N[1])->1:0)+(isL(N[2])->1:0) <= 1 );
    assert( (isL(O[0])||isF(O[0])->1:0)+(isL(O[1])||isF(O[1])->1:0) <= 1 );
    /* nothing comes back */
    assert( answers(O[0]) && answers(O[1]) && answers(N[0]) && answers(N[1]) && answers(N[2]) );
    /* live in old: not yet in new */
    assert( !(isL(O[0])||isL(O[1])) || !(isL(N[0])||isL(N[1])||isL(N[2])) );
    /* frozen in old and live in new must be the same item */
    if :: isF(O[0]) -> assert( (!isL(N[0]) || N[0]-10==O[0]-20) && (!isL(N[1]) || N[1]-10==O[0]-20) && (!isL(N[2]) || N[2]-10==O[0]-20) ) :: else fi;
    if :: isF(O[1]) -> assert( (!isL(N[0]) || N[0]-10==O[1]-20) && (!isL(N[1]) || N[1]-10==O[1]-20) && (!isL(N[2]) || N[2]-10==O[1]-20) ) :: else fi
  }
}
/* insert item id into N; old = index of the frozen old slot that must still be frozen at promotion, or 9 for an ordinary set */
inline insertN(id, oldslot, okv) {
  skip;
again:
  li = 9; e = 9; i = 0;
  do
  :: i < WN -> d_step{ w = N[i]; if :: isL(w) -> li = i; lw = w :: else fi; if :: (w==0 && e==9) -> e = i :: else fi; w=0; i++ }
  :: else -> break
  od;
  if
  :: li != 9 ->
     if
     :: oldslot != 9 -> okv = 1; goto fin_        /* a copy is there already */
     :: else ->
       if
       :: atomic{ N[li]==lw -> N[li]=L(id); dead[lw-10]=1; image() } ; okv = 1; goto fin_
       :: atomic{ N[li]!=lw -> skip }; goto again
       fi
     fi
  :: else
  fi;
  if :: (oldslot != 9 && !isF(O[oldslot])) -> okv = 1; goto fin_ :: else fi;
  if :: e == 9 -> okv = 0; goto fin_ :: else fi;
  if
  :: atomic{ N[e]==0 -> N[e]=T(_pid) }
  :: atomic{ N[e]!=0 -> skip }; goto again
  fi;
  p = e; i = 0;
  do
  :: i < WN ->
     if
     :: i == p -> i++
     :: else ->
        atomic{ w = N[i] };
        if
        :: isL(w) -> atomic{ if :: N[p]==T(_pid) -> N[p]=0 :: else fi }; goto again
        :: isT(w) -> if :: atomic{ N[i]==w -> N[i]=0 }; i++ :: atomic{ N[i]!=w -> skip } fi
        :: else -> i++
        fi
     fi
  :: else -> break
  od;
#ifndef NORECHECK
  if :: (oldslot != 9 && !isF(O[oldslot])) -> atomic{ if :: N[p]==T(_pid) -> N[p]=0 :: else fi }; okv = 1; goto fin_ :: else fi;
#endif
  if
  :: atomic{ N[p]==T(_pid) -> N[p]=L(id); image() }; okv = 1
  :: atomic{ N[p]!=T(_pid) -> skip }; goto again
  fi;
fin_: skip
}
inline insert2(id, okv) {
  skip;
again2:
  li = 9; e = 9; i = 0;
  do
  :: i < WN -> d_step{ w = N[i]; if :: isL(w) -> li = i; lw = w :: else fi; if :: (w==0 && e==9) -> e = i :: else fi; w=0; i++ }
  :: else -> break
  od;
  if
  :: li != 9 ->
     if
     :: false -> okv = 1; goto fin2_        /* a copy is there already */
     :: else ->
       if
       :: atomic{ N[li]==lw -> N[li]=L(id); dead[lw-10]=1; image() } ; okv = 1; goto fin2_
       :: atomic{ N[li]!=lw -> skip }; goto again2
       fi
     fi
  :: else
  fi;
  if :: (false && !false) -> okv = 1; goto fin2_ :: else fi;
  if :: e == 9 -> okv = 0; goto fin2_ :: else fi;
  if
  :: atomic{ N[e]==0 -> N[e]=T(_pid) }
  :: atomic{ N[e]!=0 -> skip }; goto again2
  fi;
  p = e; i = 0;
  do
  :: i < WN ->
     if
     :: i == p -> i++
     :: else ->
        atomic{ w = N[i] };
        if
        :: isL(w) -> atomic{ if :: N[p]==T(_pid) -> N[p]=0 :: else fi }; goto again2
        :: isT(w) -> if :: atomic{ N[i]==w -> N[i]=0 }; i++ :: atomic{ N[i]!=w -> skip } fi
        :: else -> i++
        fi
     fi
  :: else -> break
  od;
#ifndef NORECHECK
  if :: (false && !false) -> atomic{ if :: N[p]==T(_pid) -> N[p]=0 :: else fi }; okv = 1; goto fin2_ :: else fi;
#endif
  if
  :: atomic{ N[p]==T(_pid) -> N[p]=L(id); image() }; okv = 1
  :: atomic{ N[p]!=T(_pid) -> skip }; goto again2
  fi;
fin2_: skip
}
/* move the whole old window */
inline moveAll() {
  j = 0;
  do
  :: j < WO ->
     atomic{ v = O[j] };
     if
     :: v == MOVED -> j++
     :: v == 0 -> if :: atomic{ O[j]==0 -> O[j]=MOVED }; j++ :: atomic{ O[j]!=0 -> skip } fi
     :: v == 99 -> if :: atomic{ O[j]==99 -> O[j]=MOVED }; j++ :: atomic{ O[j]!=99 -> skip } fi
     :: isT(v) -> if :: atomic{ O[j]==v -> O[j]=MOVED }; j++ :: atomic{ O[j]!=v -> skip } fi
     :: isL(v) -> if :: atomic{ O[j]==v -> O[j]=F(v-10); image() } :: atomic{ O[j]!=v -> skip } fi
     :: isF(v) -> insertN(v-20, j, okm);
                  if :: atomic{ O[j]==v -> O[j]=MOVED; image() } :: atomic{ O[j]!=v -> skip } fi; j++
     fi
  :: else -> break
  od
}
proctype MoveDel() { byte i,w,p,lw,li,e,j,v; bool okm;
  moveAll();
  i = 0;
  do
  :: i < WN -> atomic{ w = N[i] };
     if :: isL(w) -> if :: atomic{ N[i]==w -> N[i]=0; dead[w-10]=1; image() }; break :: atomic{ N[i]!=w -> skip } fi
     :: else -> i++ fi
  :: else -> break
  od
}
proctype MoveSet(byte id) { byte i,w,p,lw,li,e,j,v; bool okm;
  moveAll(); insert2(id, okm) }
proctype Mover() { byte i,w,p,lw,li,e,j,v; bool okm; moveAll() }
/* a writer that has not noticed the growth: replace or delete in the old table by CAS on the LIVE word */
proctype OldDel() { byte v; atomic{ v = O[0] }; if :: isL(v) -> if :: atomic{ O[0]==v -> O[0]=0; dead[v-10]=1; image() } :: atomic{ O[0]!=v -> skip } fi :: else fi }
/* a writer that sets in the old table while its window is untouched, and leaves when the scan after placing meets FROZEN or MOVED */
proctype OldSet(byte id) { byte i,w,p,li,lw,e,f;
again3:
  li = 9; e = 9; f = 0; i = 0;
  do
  :: i < WO -> atomic{ w = O[i] }; if :: isL(w) -> li = i; lw = w :: (w==0 && e==9) -> e = i :: (isF(w)||w==MOVED) -> f = 1 :: else fi; i++
  :: else -> break
  od;
  if
  :: f -> goto out3                                /* it would move the window and go on in N: MoveSet is that */
  :: !f && li != 9 ->
     if :: atomic{ O[li]==lw -> O[li]=L(id); dead[lw-10]=1; image() }; goto out3 :: atomic{ O[li]!=lw -> skip }; goto again3 fi
  :: else
  fi;
  if :: e == 9 -> goto out3 :: else fi;
  if :: atomic{ O[e]==0 -> O[e]=T(_pid) } :: atomic{ O[e]!=0 -> skip }; goto again3 fi;
  p = e; i = 0;
  do
  :: i < WO ->
     if
     :: i == p -> i++
     :: else ->
        atomic{ w = O[i] };
        if
        :: isL(w) -> atomic{ if :: O[p]==T(_pid) -> O[p]=0 :: else fi }; goto again3
        :: isT(w) -> if :: atomic{ O[i]==w -> O[i]=0 }; i++ :: atomic{ O[i]!=w -> skip } fi
#ifndef NOLOOK
        :: isF(w) || w == MOVED -> atomic{ if :: O[p]==T(_pid) -> O[p]=0 :: else fi }; goto out3
#endif
        :: else -> i++
        fi
     fi
  :: else -> break
  od;
  if
  :: atomic{ O[p]==T(_pid) -> O[p]=L(id); image() }
  :: atomic{ O[p]!=T(_pid) -> skip }; goto again3
  fi;
out3: skip
}
#ifdef OLDSET
init { O[0]=0; O[1]=0; atomic{ run MoveSet(1); run Mover(); run OldSet(2); run OldSet(3) } }
#else
init { O[0]=L(1); O[1]=99; atomic{ run MoveDel(); run Mover(); run MoveSet(2); run OldDel() } }
#endif
