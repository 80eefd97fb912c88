"""Silhouettes: each kind of thing as a few filled primitives in the unit square (x to the right, y down).

A part is a letter, a tone and numbers: B box and O oval take two corners, P polygon takes points, L line takes
a width and points. Tones: body is the thing's own colour; dark, light are shades of it; ink, paper are fixed.
"""
# ruff: noqa: E501 - one silhouette a line reads best

from collections.abc import Mapping

SHAPES: Mapping[str, str] = {
    "boat": "P body .04 .62 .96 .62 .78 .9 .2 .9; B ink .46 .08 .5 .62; P light .53 .12 .9 .56 .53 .56; P paper .43 .2 .43 .56 .16 .56",
    "lighthouse": "P body .36 .28 .64 .28 .74 1 .26 1; P paper .33 .48 .67 .48 .69 .64 .31 .64; B ink .36 .14 .64 .28; B paper .42 .16 .58 .26; P body .34 .14 .5 0 .66 .14",
    "house": "B body .14 .44 .86 1; P dark .04 .46 .5 .06 .96 .46; B ink .42 .68 .58 1; B paper .2 .54 .36 .7; B paper .64 .54 .8 .7",
    "castle": "B body .1 .4 .9 1; B body .04 .18 .26 1; B body .74 .18 .96 1; B body .38 .26 .62 .6; B dark .04 .1 .1 .2; B dark .2 .1 .26 .2; B dark .74 .1 .8 .2; B dark .9 .1 .96 .2; O ink .4 .66 .6 .9; B ink .4 .78 .6 1",
    "tree": "B ink .43 .6 .57 1; O body .08 .2 .62 .7; O body .38 .2 .92 .7; O light .24 0 .76 .52",
    "car": "P body .02 .56 .2 .52 .34 .3 .7 .3 .84 .52 .98 .58 .98 .78 .02 .78; P paper .28 .5 .38 .36 .5 .36 .5 .5; P paper .54 .36 .66 .36 .76 .5 .54 .5; O ink .14 .66 .38 .9; O ink .64 .66 .88 .9",
    "bus": "B body .02 .16 .98 .82; B paper .08 .26 .26 .48; B paper .32 .26 .5 .48; B paper .56 .26 .74 .48; B ink .8 .26 .94 .76; O ink .12 .7 .34 .94; O ink .62 .7 .84 .94",
    "train": "B body .3 .42 .96 .8; B dark .66 .16 .96 .6; B paper .72 .24 .9 .42; B ink .36 .18 .46 .44; P ink .3 .6 .3 .82 .08 .82; O ink .3 .7 .5 .92; O ink .54 .7 .74 .92; O ink .76 .7 .96 .92; O paper .3 0 .52 .16",
    "bicycle": "O ink .02 .46 .44 .88; O paper .08 .52 .38 .82; O ink .56 .46 .98 .88; O paper .62 .52 .92 .82; L body .06 .23 .67 .42 .36 .68 .36 .77 .67; L body .06 .23 .67 .5 .67 .68 .36; L ink .05 .34 .28 .48 .28; L ink .05 .68 .36 .66 .22 .8 .22",
    "balloon": "O body .12 0 .88 .72; O light .34 0 .66 .72; P dark .24 .58 .76 .58 .6 .78 .4 .78; B ink .4 .84 .6 1; L ink .02 .4 .78 .42 .86; L ink .02 .6 .78 .58 .86",
    "kite": "P body .5 0 .86 .34 .5 .72 .14 .34; P light .5 0 .86 .34 .5 .34; P dark .5 .34 .5 .72 .14 .34; L ink .03 .5 .72 .6 .8 .46 .88 .58 1; P body .52 .82 .64 .78 .62 .88; P body .42 .92 .54 .86 .52 .98",
    "apple": "O body .08 .24 .62 .96; O body .38 .24 .92 .96; L ink .06 .5 .32 .54 .06; O leaf .54 .04 .84 .2; O light .2 .36 .34 .56",
    "banana": "P body .08 .14 .18 .1 .3 .42 .56 .62 .92 .6 .96 .7 .7 .86 .38 .8 .14 .54; P ink .06 .06 .18 .06 .18 .14 .08 .16; P dark .3 .56 .52 .7 .84 .7 .66 .78 .42 .72",
    "fish": "O body .02 .22 .76 .8; P dark .66 .5 .98 .2 .9 .5 .98 .82; P light .3 .24 .5 .04 .58 .28; O paper .14 .38 .28 .52; O ink .18 .42 .25 .49",
    "bird": "O body .2 .36 .78 .8; O body .56 .16 .88 .5; P orange .86 .3 1 .36 .86 .4; P dark .06 .34 .3 .44 .64 .5 .44 .72 .2 .62; O ink .7 .26 .76 .32; L ink .03 .44 .78 .44 .98; L ink .03 .56 .78 .56 .98; P body .22 .6 0 .76 .04 .86 .3 .72",
    "cat": "O body .22 .42 .8 1; O body .26 .12 .74 .56; P body .28 .26 .28 0 .46 .16; P body .72 .26 .72 0 .54 .16; O paper .36 .26 .46 .36; O paper .54 .26 .64 .36; O ink .39 .28 .44 .35; O ink .57 .28 .62 .35; P ink .46 .4 .54 .4 .5 .46; L body .08 .76 .92 .94 .86 .94 .6",
    "butterfly": "O body .04 .06 .5 .54; O body .5 .06 .96 .54; O dark .12 .46 .48 .9; O dark .52 .46 .88 .9; O light .16 .18 .34 .38; O light .66 .18 .84 .38; B ink .47 .2 .53 .88; L ink .03 .5 .22 .38 .02; L ink .03 .5 .22 .62 .02",
    "flower": "B leaf .47 .5 .53 1; O leaf .5 .72 .8 .88; O body .36 0 .64 .3; O body .36 .36 .64 .66; O body .16 .18 .46 .48; O body .54 .18 .84 .48; O gold .38 .22 .62 .46",
    "mushroom": "P paper .38 .5 .62 .5 .68 1 .32 1; P body .04 .54 .1 .28 .3 .1 .5 .06 .7 .1 .9 .28 .96 .54; O paper .24 .22 .38 .36; O paper .5 .14 .62 .26; O paper .66 .32 .8 .46",
    "umbrella": "P body .02 .5 .08 .28 .28 .1 .5 .06 .72 .1 .92 .28 .98 .5; P light .34 .5 .5 .06 .66 .5; L ink .05 .5 .06 .5 .86 .44 .94 .36 .9; B ink .48 0 .52 .08",
    "teapot": "O body .2 .32 .78 .92; P body .7 .5 .98 .3 .98 .4 .78 .76; L dark .07 .24 .46 .06 .46 .06 .72 .28 .74; B dark .36 .24 .62 .34; O ink .43 .12 .55 .26; O light .32 .44 .44 .62",
    "drum": "B body .12 .32 .88 .8; O body .12 .66 .88 .94; O paper .12 .18 .88 .46; L gold .04 .12 .36 .32 .84 .5 .46 .7 .84 .88 .36; L ink .04 .3 .3 .02 .06; L ink .04 .7 .3 .98 .06",
    "rocket": "P body .5 0 .68 .22 .68 .76 .32 .76 .32 .22; P dark .32 .5 .14 .86 .32 .76; P dark .68 .5 .86 .86 .68 .76; O paper .4 .26 .6 .46; O ink .45 .31 .55 .41; P orange .38 .78 .62 .78 .5 1",
    "windmill": "P body .38 .4 .62 .4 .72 1 .28 1; P dark .36 .4 .5 .26 .64 .4; P paper .48 .38 .06 .1 .14 .02; P paper .52 .38 .94 .1 .86 .02; P paper .48 .4 .04 .66 .1 .76; P paper .52 .4 .96 .66 .9 .76; O ink .44 .32 .56 .44; B ink .44 .78 .56 1",
    "tent": "P body .5 .12 .98 .92 .02 .92; P ink .5 .36 .64 .92 .36 .92; P light .5 .12 .98 .92 .72 .92; L ink .03 .5 .12 .5 .02; P gold .5 .02 .64 .06 .5 .1",
    "snowman": "O paper .18 .5 .82 1; O paper .28 .22 .72 .62; O paper .34 .02 .66 .32; B body .28 .26 .72 .36; B body .6 .3 .7 .56; B ink .38 0 .62 .06; P orange .5 .16 .7 .2 .5 .22; O ink .42 .12 .46 .16; O ink .54 .12 .58 .16; O ink .48 .46 .53 .51; O ink .48 .6 .53 .65",
    "guitar": "O body .24 .6 .76 1; O body .3 .42 .7 .74; O ink .42 .6 .58 .76; B dark .46 .1 .54 .62; B ink .42 0 .58 .12; B paper .4 .84 .6 .88",
    "clock": "O body .06 .06 .94 .94; O paper .16 .16 .84 .84; L ink .05 .5 .5 .5 .24; L ink .05 .5 .5 .68 .6; O ink .46 .46 .54 .54; B ink .48 .17 .52 .22; B ink .48 .78 .52 .83; B ink .17 .48 .22 .52; B ink .78 .48 .83 .52",
    "key": "O body .02 .28 .42 .72; O paper .12 .39 .3 .61; B body .38 .44 .98 .56; B body .8 .56 .86 .74; B body .9 .56 .96 .7; B body .68 .56 .74 .68",
    "turtle": "P body .14 .62 .2 .36 .4 .22 .6 .22 .8 .36 .86 .62; O leaf .8 .4 1 .62; O leaf .16 .58 .34 .8; O leaf .64 .58 .82 .8; P dark .36 .34 .5 .26 .62 .36 .56 .52 .42 .52; O ink .9 .46 .94 .5",
    # The two kinds below stand in for what real crawls have and a sample must not: see `scenes.LABELS`.
    "face": "O body 0 0 1 1; O ink .26 .26 .4 .44; O ink .6 .26 .74 .44; P ink .2 .6 .8 .6 .68 .78 .5 .84 .32 .78; P paper .28 .62 .72 .62 .66 .68 .34 .68",
    "stripes": "B ink 0 0 1 1; P body 0 0 .2 0 0 .2; P body .4 0 .6 0 0 .6 0 .4; P body .8 0 1 0 0 1 0 .8; P body 1 .2 1 .4 .4 1 .2 1; P body 1 .6 1 .8 .8 1 .6 1; O paper .3 .3 .7 .7; O ink .36 .36 .64 .64",
}
