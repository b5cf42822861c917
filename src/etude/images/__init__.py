"""A small world of pictures: captions of coloured shapes, how they are drawn, a judge of whether a picture shows what its caption says, and measures of a set of pictures."""
