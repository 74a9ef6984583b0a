"""What comes before every act: is the resource to stay, is it to move, is its target there and ours alone?"""
