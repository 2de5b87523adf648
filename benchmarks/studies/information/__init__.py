"""Does attention keep information, and does its order follow information?"""
