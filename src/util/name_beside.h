/* SPDX-License-Identifier: MIT */
/* Names of files that stand in other files. */
#ifndef PLATTER_UTIL_NAME_BESIDE_H
#define PLATTER_UTIL_NAME_BESIDE_H

/* Where name is, seen from here, when the file image names it: relative names count from the
 * image's folder; absolute ones and those of protocols stay. malloc'd, NULL: no memory. */
char *name_beside(const char *image, const char *name);

#endif
