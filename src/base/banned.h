/* banned.h - functions that invite mistakes; included last by files that handle input. */
#ifndef PF_BANNED_H
#define PF_BANNED_H
#undef alloca /* a macro in glibc; a macro cannot be poisoned without a warning */
#pragma GCC poison strcpy strcat sprintf vsprintf gets strtok atoi atol atof alloca
#endif
